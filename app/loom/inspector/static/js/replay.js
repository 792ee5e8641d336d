// A call made again: its requests and metadata to edit, what was redacted to be given, and the answer beside the original.

import { ask, make, table } from "./dom.js";

export function replay(call) {
  if (call.live) return [make("p", {}, "The call is under way.")];
  const requests = call.messages.filter((message) => message.direction === "request");
  const canEdit = requests.every((message) => message.json !== undefined) && !call.messagesLeftOut;
  const bodies = make("textarea", { rows: "8", spellcheck: "false", "aria-label": "Requests, a list of JSON" });
  bodies.value = JSON.stringify(requests.map((message) => message.json), null, 2);
  const before = bodies.value;
  const metadata = make("textarea", { rows: "2", spellcheck: "false", "aria-label": "Metadata to send instead",
    placeholder: "x-tenant: blue — metadata to send instead, a line each; without a value it is left out" });
  const secrets = call.redacted.map((name) => [name, make("input", { type: "password", autocomplete: "off", "aria-label": name })]);
  const answer = make("div", { role: "status" });
  const send = make("button", { type: "button", onclick: () => run() }, "Replay");

  async function run() {
    send.disabled = true;
    answer.replaceChildren("…");
    try {
      const edit = { metadata: { ...Object.fromEntries(secrets.map(([name, input]) => [name, input.value])), ...lines(metadata.value) } };
      if (canEdit && bodies.value !== before) edit.messages = requestsOf(bodies.value);
      const shown = await ask(`/api/replay/${encodeURIComponent(call.id)}`, { method: "POST", body: JSON.stringify(edit) });
      answer.replaceChildren(...beside(shown));
    } catch (error) {
      answer.replaceChildren(make("p", { class: "problem" }, error.message));
    }
    send.disabled = false;
  }

  return [
    canEdit ? bodies : make("p", {}, "Its requests can't be edited, as they are not known as JSON; they are sent as they were."),
    metadata,
    secrets.length ? table(["Redacted metadata", "Value; left out where empty"], secrets) : null,
    send, answer,
  ];
}

function requestsOf(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`the requests are no JSON: ${error.message}`);
  }
}

// Of `name: value`.
function lines(text) {
  const found = {};
  for (const line of text.split("\n").map((each) => each.trim()).filter(Boolean)) {
    const at = line.indexOf(":");
    if (at < 1) throw new Error(`“${line}” is no metadata: name: value is`);
    found[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return found;
}

function beside({ original, replay: again, sameStatus, sameBody, differences }) {
  const responses = (call) => call.messages.filter((message) => message.direction === "response")
    .map((message) => JSON.stringify(message.json ?? message.fields ?? message.base64 ?? message.problem, null, 2)).join("\n");
  const shown = (call) => make("div", {}, make("h2", {}, `${call === again ? "Now" : "Then"}: ${call.statusName}`),
    call.grpcMessage ? make("p", { class: "problem" }, call.grpcMessage) : "", make("pre", {}, responses(call) || "no response"));
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  return [
    make("p", { class: sameStatus && sameBody ? "ok" : "failed" },
      `${sameStatus ? "the same status" : "another status"}, ${sameBody ? "the same body" : "another body"}`),
    differences.length ? table(["Where", "Then", "Now"], differences.map((each) => [each.where, text(each.before), text(each.after)])) : "",
    make("div", { class: "beside" }, shown(original), shown(again)),
  ];
}
