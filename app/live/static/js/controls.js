// The buttons. Each asks the server for one action; what came of it, or why not, is said in one line below them.

import { byId, make, write } from "./dom.js";

const DEADLINE_MS = 60_000;
const LEAST_CALLERS = 5;
const MAX_SLOW_MS = 60_000;
const MAX_ID = Number.MAX_SAFE_INTEGER;

const whole = (name, from, to) => (field) => {
  const value = Number(field.value);
  if (field.value.trim() !== "" && Number.isInteger(value) && value >= from && value <= to) return value;
  throw new Error(`${name}: a whole number from ${from} to ${to}`);
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
    const callers = (form) => whole("Callers", LEAST_CALLERS, most)(form.elements.callers);
    return this.#group("Stampede on a cold key", can, [
      labelled("callers", "Callers", Math.min(200, most), LEAST_CALLERS, most),
      {
        text: "Fire a stampede",
        action: "stampede",
        body: (form) => ({ callers: callers(form), id: null }),
        look: "primary",
        onEnter: true,
      },
    ]);
  }

  #template(can) {
    const body = (form) => ({ id: whole("Template", 1, MAX_ID)(form.elements.id) });
    return this.#group("One template", can, [
      labelled("id", "Template", 1, 1, null),
      { text: "Expire", action: "expire", body, onEnter: true },
      { text: "Change", action: "change", body },
    ]);
  }

  #redis(can) {
    return this.#group("Redis", can, [
      { text: "There", action: "redis_back", when: ["redis", "there"] },
      { text: "Away", action: "redis_away", when: ["redis", "away"] },
    ]);
  }

  #postgres(can) {
    const body = (form) => ({ ms: whole("Slower by", 1, MAX_SLOW_MS)(form.elements.ms) });
    return this.#group("PostgreSQL", can, [
      { text: "Normal", action: "postgres_normal", when: ["postgres", "normal"] },
      { text: "Slow", action: "postgres_slow", body, when: ["postgres", "slow"], onEnter: true },
      make("label", {}, "by ", input("ms", 500, 1, MAX_SLOW_MS, "Slower by, ms"), " ms"),
    ]);
  }

  #modes(can, modes = []) {
    const options = modes.map((mode) => make("option", { value: mode }, mode));
    this.#mode = make("select", { name: "mode", "aria-label": "Mode" }, ...options);
    return this.#group("Mode of the protected app", can, [
      this.#mode,
      { text: "Switch", action: "mode", body: (form) => ({ mode: form.elements.mode.value }) },
    ]);
  }

  // `parts` are fields, and buttons: {text, action, body of the form's fields, look, the state that it brings about
  // (`when`), whether Enter in a field presses it}. A group whose actions the server doesn't take is left out.
  #group(title, can, parts) {
    const isOffered = (part) => part instanceof Element || can.has(part.action);
    if (!parts.some((part) => !(part instanceof Element) && can.has(part.action))) return null;
    const form = make("form", { "aria-label": title, novalidate: "" });
    const made = parts.filter(isOffered).map((part) => (part instanceof Element ? part : this.#button(form, part)));
    form.append(make("h3", {}, title), make("div", { class: "row" }, ...made));
    form.addEventListener("submit", (event) => event.preventDefault());
    return form;
  }

  #button(form, { text, action, body = () => ({}), look, when, onEnter }) {
    const button = make("button", { type: onEnter ? "submit" : "button", "data-action": action, class: look }, text);
    if (when) {
      const [what, state] = when;
      button.setAttribute("aria-pressed", "false");
      (this.#toggles[what] ??= {})[state] = button;
    }
    button.addEventListener("click", () => this.#act(form, button, action, body));
    return button;
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
