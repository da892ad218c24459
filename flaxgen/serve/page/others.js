// The menu of characters that might stand at a place, with their probabilities.
import { make } from "./dom.js";

let open = null; // {menu, button}

// `others`: [{text, probability}, …]; `take` gets the text that is chosen.
export function choose(button, title, others, take) {
  const again = open?.button === button;
  dismiss();
  if (again) return;
  const items = others.map(({ text, probability }) => {
    const item = make("button", { type: "button", className: "other", tabIndex: -1, role: "menuitemradio" });
    const chance = Math.min(Math.max(Number(probability) || 0, 0), 1);
    const bar = make("span", { className: "bar", ariaHidden: "true" });
    bar.style.setProperty("--chance", chance);
    item.append(make("span", { className: "character" }, String(text)), bar, make("span", { className: "chance" }, percent(chance)));
    item.setAttribute("aria-checked", String(text === button.textContent));
    item.addEventListener("click", () => {
      dismiss();
      take(String(text));
    });
    return item;
  });
  const menu = make("div", { className: "others", role: "menu", ariaLabel: title, lang: "zh-Hans" }, ...items);
  menu.addEventListener("keydown", (event) => move(event, items));
  button.closest(".scrolls").append(menu);
  button.setAttribute("aria-expanded", "true");
  open = { menu, button };
  place(menu, button);
  (items.find((item) => item.textContent.startsWith(button.textContent)) ?? items[0]).focus();
}

export function dismiss() {
  if (!open) return;
  const { menu, button } = open;
  open = null;
  button.setAttribute("aria-expanded", "false");
  if (menu.contains(document.activeElement)) button.focus();
  menu.remove();
}

const percent = (chance) => `${chance < 0.001 ? "<0.1" : (100 * chance).toFixed(chance < 0.1 ? 1 : 0)}%`;

// Beside the character, wherever in the window there is room.
function place(menu, button) {
  const frame = menu.parentElement.getBoundingClientRect();
  const spot = button.getBoundingClientRect();
  const outside = spot.left - 16 - menu.offsetWidth; // where it hides none of the upper line
  const left = outside >= 8 ? outside : Math.max(Math.min(spot.right + 8, document.documentElement.clientWidth - menu.offsetWidth - 8), 8);
  const top = Math.min(spot.top, Math.max(innerHeight - menu.offsetHeight - 8, 8));
  menu.style.left = `${left - frame.left}px`;
  menu.style.top = `${top - frame.top}px`;
}

function move(event, items) {
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    items[(to + items.length) % items.length].focus();
  } else if (event.key === "Escape" || event.key === "Tab") {
    if (event.key === "Escape") event.preventDefault();
    dismiss();
  }
}

document.addEventListener("pointerdown", ({ target }) => {
  if (open && !open.menu.contains(target) && !open.button.contains(target)) dismiss();
});
