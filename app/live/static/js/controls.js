// The buttons. Each asks the server for one action; what came of it, or why not, is said in one line below them.

import { byId, make, write } from "./dom.js";

const DEADLINE_MS = 60_000;
const LEAST_CALLERS = 5;
const MAX_ID = Number.MAX_SAFE_INTEGER;

const whole = (name, from, to) => (field) => {
  const value = Number(field.value);
  if (field.value.trim() !== "" && Number.isInteger(value) && value >= from && value <= to) return value;
  throw new Error(`${name}: a whole number from ${from} to ${to === MAX_ID ? "9007199254740991" : to}`);
};

export class Controls {
  #section = byId("controls");
  #said = byId("said");
  #shown = "";
  #toggles = {};
  #mode = null;

  // `controls` as the server's hello has them: null where it takes no actions.
  offer(controls) {
    const shown = JSON.stringify({ ...controls, state: null });
    if (shown !== this.#shown) this.#build(controls);
    this.#shown = shown;
    for (const [what, state] of Object.entries(controls?.state ?? {})) this.#press(what, state);
  }

  // A mark says what somebody has done, here or in another window.
  follow(kind) {
    const [what, state] =
      {
        redis_away: ["redis", "away"],
        redis_back: ["redis", "there"],
        postgres_slow: ["postgres", "slow"],
        postgres_normal: ["postgres", "normal"],
      }[kind] ?? [];
    if (what) this.#press(what, state);
  }

  // The mode that the app runs in now.
  running(mode) {
    if (!this.#mode || this.#mode.dataset.runs === mode) return;
    this.#mode.dataset.runs = mode;
    this.#mode.value = mode;
  }

  #build(controls) {
    this.#toggles = {};
    this.#mode = null;
    document.documentElement.dataset.controls = controls === null ? "off" : "on";
    this.#section.hidden = controls === null;
    const can = new Set(controls?.actions);
    const groups =
      controls === null
        ? []
        : [
            this.#stampede(can, controls.max_callers),
            this.#template(can),
            this.#redis(can),
            this.#postgres(can),
            this.#modes(can, controls.modes),
          ];
    this.#section.replaceChildren(...groups.filter(Boolean));
  }

  #stampede(can, most = 1_000) {
    if (!can.has("stampede")) return null;
    const callers = labelled("callers", "Callers", Math.min(200, most), LEAST_CALLERS, most);
    return this.#group(
      "Stampede on a cold key",
      [callers],
      [
        [
          "Fire a stampede",
          "stampede",
          (form) => ({ callers: whole("Callers", LEAST_CALLERS, most)(form.elements.callers), id: null }),
          "primary",
        ],
      ],
      can,
    );
  }

  #template(can) {
    const id = (form) => ({ id: whole("Template", 1, MAX_ID)(form.elements.id) });
    return this.#group(
      "One template",
      [labelled("id", "Template", 1, 1, null)],
      [
        ["Expire", "expire", id],
        ["Change", "change", id],
      ],
      can,
    );
  }

  #redis(can) {
    return this.#group(
      "Redis",
      [],
      [
        ["There", "redis_back", () => ({}), "redis:there"],
        ["Away", "redis_away", () => ({}), "redis:away"],
      ],
      can,
    );
  }

  #postgres(can) {
    const ms = (form) => ({ ms: whole("Slower by", 1, 60_000)(form.elements.ms) });
    return this.#group(
      "PostgreSQL",
      [make("label", {}, "by ", input("ms", 500, 1, 60_000, "Slower by, ms"), " ms")],
      [
        ["Normal", "postgres_normal", () => ({}), "postgres:normal"],
        ["Slow", "postgres_slow", ms, "postgres:slow"],
      ],
      can,
    );
  }

  #modes(can, modes = []) {
    if (!can.has("mode")) return null;
    this.#mode = make(
      "select",
      { name: "mode", "aria-label": "Mode" },
      ...modes.map((mode) => make("option", { value: mode }, mode)),
    );
    return this.#group(
      "Mode of the protected app",
      [this.#mode],
      [["Switch", "mode", (form) => ({ mode: form.elements.mode.value })]],
      can,
    );
  }

  // `buttons`: [text, action, body of the form's fields, class or "what:state" of a toggle].
  #group(title, fields, buttons, can) {
    const shown = buttons.filter(([, action]) => can.has(action));
    if (shown.length === 0) return null;
    const made = shown.map(([text, action, body, look = ""], nth) => {
      const [what, state] = look.split(":");
      const button = make(
        "button",
        {
          type: nth === 0 && fields.length > 0 ? "submit" : "button",
          "data-action": action,
          class: state ? null : look || null,
        },
        text,
      );
      if (state) {
        button.setAttribute("aria-pressed", "false");
        (this.#toggles[what] ??= {})[state] = button;
      }
      const act = () => this.#act(form, button, action, body);
      button.addEventListener("click", (event) => {
        event.preventDefault();
        act();
      });
      return button;
    });
    const form = make(
      "form",
      { "aria-label": title, novalidate: "" },
      make("h3", {}, title),
      make("div", { class: "row" }, ...fields, ...made),
    );
    form.addEventListener("submit", (event) => event.preventDefault());
    return form;
  }

  #press(what, state) {
    for (const [name, button] of Object.entries(this.#toggles[what] ?? {}))
      button.setAttribute("aria-pressed", String(name === state));
  }

  async #act(form, button, action, bodyOf) {
    if (form.getAttribute("aria-busy") === "true") return;
    let body;
    try {
      body = bodyOf(form);
    } catch (error) {
      return this.#say(error.message, true);
    }
    form.setAttribute("aria-busy", "true");
    for (const each of form.querySelectorAll("button")) each.disabled = true;
    button.classList.add("busy");
    this.#say(`${button.textContent} …`, false);
    try {
      this.#say(await ask(action, body), false);
    } catch (error) {
      this.#say(error.message, true);
    } finally {
      button.classList.remove("busy");
      for (const each of form.querySelectorAll("button")) each.disabled = false;
      form.removeAttribute("aria-busy");
      if (document.activeElement === document.body) button.focus();
    }
  }

  #say(text, isProblem) {
    this.#said.classList.toggle("problem", isProblem);
    write(this.#said, text);
  }
}

const labelled = (name, text, value, from, to) => make("label", {}, `${text} `, input(name, value, from, to));

function input(name, value, min, max, label = null) {
  return make("input", { name, type: "number", inputmode: "numeric", value, min, max, step: 1, "aria-label": label });
}

async function ask(action, body) {
  let answer;
  try {
    answer = await fetch(`/actions/${action}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
  } catch (error) {
    if (error.name === "TimeoutError") throw new Error(`no answer within ${DEADLINE_MS / 1_000} s`);
    throw new Error(
      action === "mode"
        ? "the connection ended; the app starts anew, and its mode is shown once it is back"
        : "the app could not be reached",
    );
  }
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) return String(told.done ?? "done");
  const detail = typeof told.detail === "string" ? told.detail : told.title;
  throw new Error(`refused: ${detail ?? `status ${answer.status}`}`);
}
