// Links that carry what a panel was asked, in the fragment, which no browser sends to a server.
import { copy, make } from "./dom.js";
import { put, say } from "./words.js";

const MOST = 40_000; // characters of one value

export function link(tab, values) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined && value !== ""));
  return `${location.origin}${location.pathname}#${tab}?${query}`;
}

// {tab, values} of the address; no value is trusted, `fill` fits each to its field.
export function opened() {
  const [tab, ...rest] = location.hash.slice(1).split("?");
  return { tab, values: Object.fromEntries(new URLSearchParams(rest.join("?").slice(0, 4 * MOST))) };
}

export function fill(form, values) {
  for (const [name, value] of Object.entries(values)) {
    const field = form.elements.namedItem(name);
    if (!(field instanceof HTMLElement)) continue;
    if (field.type === "checkbox") field.checked = value === "1";
    else if (field.type === "range" || field.type === "number") fillNumber(field, Number(value));
    else if (field instanceof HTMLSelectElement) fillChoice(field, value);
    else field.value = value.slice(0, field.maxLength > 0 ? field.maxLength : MOST);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
}

function fillNumber(field, number) {
  if (Number.isFinite(number)) field.value = String(Math.min(Math.max(number, Number(field.min)), Number(field.max)));
}

function fillChoice(field, value) {
  if ([...field.options].some((option) => option.value === value)) field.value = value;
}

// A button that copies what `text` gives, and says that it did; where the browser forbids it, the text is shown for copying by hand.
export function copies(button, text) {
  button.addEventListener("click", async () => {
    const word = button.dataset.word;
    if (await copy(text())) {
      put(button, "copied");
      setTimeout(() => put(button, word), 1600);
    } else {
      const area = make("textarea", { value: text(), readOnly: true, rows: 3 });
      const label = make("label", { className: "field byhand" }, make("span", {}, say("copy.failed")), area);
      button.parentElement.parentElement.querySelector(".byhand")?.remove();
      button.parentElement.after(label);
      area.select();
    }
  });
}
