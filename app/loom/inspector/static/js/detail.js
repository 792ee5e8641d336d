// One call, in tabs.

import { ask, byId, make, milliseconds, table } from "./dom.js";
import { replay } from "./replay.js";

const TABS = { Messages: messages, Metadata: metadata, "Status and trailers": status, Timing: timing, Raw: raw, Replay: replay };
const OPEN = 20; // messages that are open at first
const ENDINGS = {
  trailers: "trailers", trailers_only: "trailers alone: one block of headers", no_trailers: "the backend, without trailers",
  reset_by_client: "a reset from the client", reset_by_backend: "a reset from the backend", refused: "the backend's GOAWAY",
  client_lost: "the loss of the client's connection", backend_lost: "the loss of the backend's connection", by_loom: "Loom's own answer",
  broken_by_client: "the client, which broke HTTP/2", broken_by_backend: "the backend, which broke HTTP/2",
  cut: "Loom, which was stopping or failed", unseen: "nobody knows: it went out of sight",
};

export class Detail {
  #id = null;
  #tab = "Messages";
  #call = null;
  #isAsking = false;
  #isStale = false;

  constructor({ onClose, tell }) {
    this.onClose = onClose;
    this.tell = tell;
    this.#resizable();
  }

  get id() { return this.#id; }

  async show(id) {
    this.#id = id;
    this.#call = null;
    byId("detail").hidden = byId("divider").hidden = id === null;
    if (id !== null) await this.refresh();
  }

  // Asks anew; one question at a time, and once more where something changed meanwhile.
  async refresh() {
    if (this.#isAsking) {
      this.#isStale = true;
      return;
    }
    this.#isAsking = true;
    do {
      this.#isStale = false;
      const id = this.#id;
      try {
        const call = await ask(`/api/calls/${encodeURIComponent(id)}`);
        if (id === this.#id) { this.#call = call; this.#draw(); } else this.#isStale = this.#id !== null;
      } catch (error) {
        if (id === this.#id) byId("detail").replaceChildren(this.#closeButton(), make("p", { class: "problem" }, error.message));
        else this.#isStale = this.#id !== null;
      }
      if (this.#isStale) await new Promise((resolve) => setTimeout(resolve, 50));
    } while (this.#isStale && this.#id !== null);
    this.#isAsking = false;
  }

  // The tab of this name, where a call is shown.
  open(name) {
    if (this.#call) this.#choose(name);
  }

  async copy() {
    if (!this.#call?.grpcurl) return this.tell("this call can't be written as a grpcurl command");
    try {
      await navigator.clipboard.writeText(this.#call.grpcurl);
      this.tell("copied as a grpcurl command");
    } catch {
      this.tell("the browser does not let this page copy; the command is under Messages");
    }
  }

  #closeButton() {
    return make("button", { type: "button", "aria-label": "Close the call", onclick: this.onClose }, "✕");
  }

  #draw() {
    const call = this.#call;
    const panel = make("div", { role: "tabpanel", id: "panel", tabindex: "0", "aria-label": this.#tab });
    const tabs = Object.keys(TABS).map((name) =>
      make("button", { type: "button", role: "tab", "aria-selected": name === this.#tab, "aria-controls": "panel",
        tabindex: name === this.#tab ? "0" : "-1", onclick: () => this.#choose(name) }, name));
    const list = make("div", { role: "tablist", "aria-label": "Parts of the call", onkeydown: (event) => this.#move(event) }, ...tabs);
    panel.append(...TABS[this.#tab](call).filter((part) => part));
    byId("detail").replaceChildren(
      make("header", {}, make("h2", {}, call.method),
        make("button", { type: "button", onclick: () => this.copy() }, "Copy as grpcurl"), this.#closeButton()),
      make("div", {}, make("span", { class: call.live ? "live" : call.statusName === "OK" ? "ok" : "failed" },
        call.live ? "in flight" : call.statusName), ` ${call.live ? "" : milliseconds(call.durationMs)} from ${call.peer}`),
      call.duplicates ? make("p", { class: "herd" },
        `${call.duplicates.calls} identical calls were in flight together; they took ${milliseconds(call.duplicates.totalMs)} in all`) : "",
      list, panel);
  }

  #choose(name) {
    this.#tab = name;
    this.#draw();
  }

  #move(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const names = Object.keys(TABS);
    this.#choose(names[(names.indexOf(this.#tab) + by + names.length) % names.length]);
    byId("detail").querySelector('[role="tab"][aria-selected="true"]').focus();
  }

  #resizable() {
    const divider = byId("divider");
    const resize = (width) => { byId("detail").style.width = `${Math.max(260, Math.min(width, innerWidth - 300))}px`; };
    divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
    divider.addEventListener("pointermove", (event) => {
      if (divider.hasPointerCapture(event.pointerId)) resize(innerWidth - event.clientX);
    });
    divider.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: 40, ArrowRight: -40 }[event.key];
      if (by) resize(byId("detail").offsetWidth + by);
    });
  }
}

function messages(call) {
  const left = call.messagesLeftOut ? make("p", { class: "problem" }, `${call.messagesLeftOut} messages in between were not kept`) : null;
  const parts = call.messages.map((message, place) => {
    const line = `${message.direction} ${message.index}, ${message.size} bytes${message.compressed ? ", compressed" : ""}, at ${milliseconds(message.atMs)}`;
    const part = make("details", { class: message.direction }, make("summary", {}, line));
    // What is closed has not been made yet: a call may have thousands.
    part.addEventListener("toggle", () => { if (part.open && part.childElementCount === 1) part.append(...body(message)); });
    part.open = place < OPEN;
    return part;
  });
  const shell = call.grpcurl ? make("details", {}, make("summary", {}, "grpcurl command"), make("pre", {}, call.grpcurl)) : null;
  const changed = call.mutations.map(({ direction, index, problem }) => make("p", { class: problem ? "problem" : "" },
    `${direction} ${index === null ? "metadata" : index}: ${problem ? `a rule could not change it: ${problem}` : "changed by a rule"}`));
  return [left, ...changed, ...parts, parts.length ? null : make("p", {}, "no message yet"), shell];
}

function body(message) {
  const problem = message.problem ? make("p", { class: "problem" }, message.problem) : "";
  const shown = message.json ?? message.fields ?? message.base64;
  return [problem, shown === undefined ? "" : make("pre", {}, JSON.stringify(shown, null, 2))];
}

function metadata(call) {
  return [make("h2", {}, "Request"), table(["Name", "Value"], call.metadata),
    make("h2", {}, "Response"), table(["Name", "Value"], call.responseMetadata)];
}

function status(call) {
  if (call.live) return [make("p", {}, "The call is under way.")];
  const facts = [["Status", `${call.statusName}${call.statusCode === null ? "" : ` (${call.statusCode})`}`], ["Message", call.grpcMessage],
    ["Ended by", ENDINGS[call.ending] ?? call.ending], ["HTTP status", call.httpStatus], ["Reset code", call.resetCode]];
  const known = facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return [table(["", ""], known.map(([name, value]) => [name, String(value)])),
    call.statusDetails ? make("h2", {}, "Details") : null,
    call.statusDetails ? make("pre", {}, JSON.stringify(call.statusDetails, null, 2)) : null,
    make("h2", {}, "Trailers"), table(["Name", "Value"], call.trailers)];
}

function timing(call) {
  const whole = call.durationMs ?? Math.max(1, ...call.messages.map((message) => message.atMs));
  const lane = make("div", { class: "lane", role: "img", "aria-label": "When messages passed: requests above, responses below" },
    make("span", {}, "requests"), make("span", {}, "responses"), make("span", {}, milliseconds(whole)));
  for (const message of call.messages) {
    const mark = make("i", { class: message.direction, title: `${message.direction} ${message.index}` });
    mark.style.left = `calc(5rem + (100% - 5.5rem) * ${Math.min(1, message.atMs / (whole || 1))})`; // beside the words
    lane.append(mark);
  }
  let before = 0;
  const rows = call.messages.map((message) => {
    const row = [message.atMs.toFixed(2), `+${(message.atMs - before).toFixed(2)}`, `${message.direction} ${message.index}`, String(message.size)];
    before = message.atMs;
    return row;
  });
  if (!call.live) rows.push([call.durationMs.toFixed(2), `+${(call.durationMs - before).toFixed(2)}`, call.statusName ?? "", ""]);
  return [lane, make("p", {}, `Began ${call.timestamp}; deadline ${call.timeoutMs === null ? "none" : milliseconds(call.timeoutMs)}`),
    table(["ms", "Δt", "What", "Bytes"], rows)];
}

function raw(call) {
  return call.messages.flatMap((message) => [
    make("h2", {}, `${message.direction} ${message.index}`),
    message.raw === undefined ? make("p", { class: "problem" }, message.problem) : make("pre", { class: "dump" }, dump(message.raw)),
    message.raw !== undefined && message.raw.length / 2 < message.size ? make("p", { class: "problem" }, `the first ${message.raw.length / 2} of ${message.size} bytes`) : null,
  ]);
}

function dump(digits) {
  const lines = [];
  for (let at = 0; at < digits.length; at += 32) {
    const bytes = digits.slice(at, at + 32).match(/../g);
    const text = bytes.map((byte) => parseInt(byte, 16)).map((code) => (code >= 32 && code < 127 ? String.fromCharCode(code) : ".")).join("");
    lines.push(`${(at / 2).toString(16).padStart(6, "0")}  ${bytes.join(" ").padEnd(47)}  ${text}`);
  }
  return lines.join("\n");
}
