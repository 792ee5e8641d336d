// A call made again: its requests to edit, what was redacted to be given, and the answer beside the original.

import { ask, make, table } from "./dom.js";

export function replay(call) {
  if (call.live) return [make("p", {}, "The call is under way.")];
  const requests = call.messages.filter((message) => message.direction === "request");
  const canEdit = requests.every((message) => message.json !== undefined) && !call.messagesLeftOut;
  const bodies = make("textarea", { rows: "8", spellcheck: "false", "aria-label": "Requests, a list of JSON" });
  bodies.value = JSON.stringify(requests.map((message) => message.json), null, 2);
  const before = bodies.value;
  const secrets = call.redacted.map((name) => [name, make("input", { type: "password", autocomplete: "off", "aria-label": name })]);
  const answer = make("div", { role: "status" });
  const send = make("button", { type: "button", onclick: () => run() }, "Replay");

  async function run() {
    send.disabled = true;
    answer.replaceChildren("…");
    try {
      const edit = { metadata: Object.fromEntries(secrets.map(([name, input]) => [name, input.value])) };
      if (canEdit && bodies.value !== before) edit.messages = JSON.parse(bodies.value);
      const shown = await ask(`/api/replay/${encodeURIComponent(call.id)}`, { method: "POST", body: JSON.stringify(edit) });
      answer.replaceChildren(...beside(shown));
    } catch (error) {
      answer.replaceChildren(make("p", { class: "problem" }, error.message));
    }
    send.disabled = false;
  }

  return [
    canEdit ? bodies : make("p", {}, "Its requests can't be edited, as they are not known as JSON; they are sent as they were."),
    secrets.length ? table(["Redacted metadata", "Value; left out where empty"], secrets) : null,
    send, answer,
  ];
}

function beside({ original, replay: again, sameStatus, sameBody, differences }) {
  const responses = (call) => call.messages.filter((message) => message.direction === "response")
    .map((message) => JSON.stringify(message.json ?? message.fields ?? message.base64 ?? message.problem, null, 2)).join("\n");
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  return [
    make("p", { class: sameStatus && sameBody ? "ok" : "failed" },
      `${sameStatus ? "the same status" : "another status"}, ${sameBody ? "the same body" : "another body"}`),
    differences.length ? table(["Where", "Then", "Now"], differences.map((each) => [each.where, text(each.before), text(each.after)])) : "",
    make("div", { class: "beside" },
      make("div", {}, make("h2", {}, `Then: ${original.statusName}`), make("pre", {}, responses(original))),
      make("div", {}, make("h2", {}, `Now: ${again.statusName}`), make("pre", {}, responses(again)))),
  ];
}
