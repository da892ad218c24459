// What the four panels have in common: a form that starts work, a button that stops it, and words for every state on the way.
import { Trouble } from "./api.js";
import { calm, make } from "./dom.js";
import { meet, modelOf } from "./server.js";
import { put, quiet } from "./words.js";

const SLOW = 5000;

// Calls work({signal, model, heard}) when the form of the panel is sent; `heard` is to be called at the first sign of life.
export function operate(panel, work) {
  const [form, go, stop, status, trouble] = ["form", ".go", ".stop", ".status", ".trouble"].map((one) => panel.querySelector(one));
  let running = null;

  async function start() {
    if (running) return;
    const own = (running = new AbortController());
    let slow = 0;
    begin();
    try {
      put(status, "state.warming");
      await unlessAborted(meet(), own.signal);
      const model = modelOf(panel.id.replace("panel-", ""));
      if (!model) throw new Trouble("missing");
      put(status, "state.waiting");
      slow = setTimeout(() => put(status, "state.slow"), SLOW);
      const heard = () => {
        clearTimeout(slow);
        if (status.dataset.word !== "state.running") put(status, "state.running");
      };
      await work({ signal: own.signal, model, heard });
      put(status, "state.done");
    } catch (error) {
      if (own.signal.aborted) put(status, "state.stopped");
      else fail(error);
    } finally {
      clearTimeout(slow);
      end();
    }
  }

  function begin() {
    trouble.hidden = true;
    trouble.replaceChildren();
    go.setAttribute("aria-disabled", "true"); // not disabled: the focus stays where it is
    stop.hidden = false;
    panel.dataset.running = "";
    panel.setAttribute("aria-busy", "true");
    const stage = panel.querySelector(".stage");
    if (stage.getBoundingClientRect().top > 0.6 * innerHeight) stage.scrollIntoView({ behavior: calm() ? "auto" : "smooth" });
  }

  function end() {
    running = null;
    go.removeAttribute("aria-disabled");
    if (document.activeElement === stop) go.focus();
    stop.hidden = true;
    delete panel.dataset.running;
    panel.removeAttribute("aria-busy");
  }

  function fail(error) {
    quiet(status);
    if (!(error instanceof Trouble)) console.error(error);
    const { kind = "page", detail = "", wait = 0, values = {} } = error instanceof Trouble ? error : {};
    const retry = make("button", { type: "button", className: "plain", onclick: start });
    const lines = [make("p", { className: "what" })];
    put(lines[0], `trouble.${kind}`, values);
    if (detail) {
      lines.push(make("p", { className: "detail" }));
      put(lines[1], "trouble.detail", { detail });
    }
    trouble.replaceChildren(...lines, retry);
    trouble.hidden = false;
    countDown(retry, wait);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault(); // the Content-Security-Policy would stop it anyway
    start();
  });
  stop.addEventListener("click", () => running?.abort());
  panel.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.defaultPrevented) running?.abort();
  });
}

function countDown(button, seconds) {
  button.disabled = seconds > 0;
  if (seconds <= 0) return put(button, "retry");
  put(button, "retry.in", { seconds: Math.ceil(seconds) });
  if (button.isConnected) setTimeout(() => countDown(button, seconds - 1), 1000);
}

function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}

// Shows the result of a panel in the place of its empty state.
export function reveal(panel) {
  panel.querySelector(".empty").hidden = true;
  panel.querySelector(".result").hidden = false;
}

export function sliders(panel) {
  for (const slider of panel.querySelectorAll(".slider")) {
    const [input, output] = [slider.querySelector("input"), slider.querySelector("output")];
    const show = () => (output.value = input.value);
    input.addEventListener("input", show);
    show();
  }
}

// Buttons that fill the form: each example is a map from fields to values, and its first value is what the button says.
export function examples(panel, list) {
  const form = panel.querySelector("form");
  const button = (values) => {
    const fill = () => {
      for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
      form.querySelector(".go").focus();
    };
    return make("button", { type: "button", className: "example", lang: "zh-Hans", onclick: fill }, Object.values(values)[0]);
  };
  panel.querySelector(".examples").replaceChildren(...list.map(button));
}
