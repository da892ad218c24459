// Where the page begins: tabs, the header's switches, what a link brought along, and what the server has loaded.
import { make, remember } from "./dom.js";
import { changeKey } from "./key.js";
import "./couplet.js";
import "./pictures.js";
import "./reading.js";
import "./story.js";
import { meet, modelNames, modelOf } from "./server.js";
import { fill, opened } from "./share.js";
import { put, say, switchLanguage, translate } from "./words.js";

const TABS = ["story", "couplet", "reading", "pictures"];
const FOLDERS = { story: "--model", couplet: "--couplets", reading: "--reader", pictures: "--painter" };
const tabOf = (name) => document.getElementById(`tab-${name}`);
const panelOf = (name) => document.getElementById(`panel-${name}`);

function select(name) {
  for (const one of TABS) {
    const chosen = one === name;
    tabOf(one).setAttribute("aria-selected", String(chosen));
    tabOf(one).tabIndex = chosen ? 0 : -1;
    panelOf(one).hidden = !chosen;
  }
}

function turn(event) {
  const at = TABS.indexOf(event.target.id.replace("tab-", ""));
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: TABS.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const name = TABS[(to + TABS.length) % TABS.length];
  tabOf(name).focus();
  tabOf(name).click();
}

for (const name of TABS) {
  tabOf(name).addEventListener("click", () => {
    select(name);
    history.replaceState(null, "", `#${name}`);
  });
  tabOf(name).addEventListener("keydown", turn);
}

// A link fills the form and never presses the button: what a stranger wrote is not sent before it was seen.
function open() {
  const { tab, values } = opened();
  if (!TABS.includes(tab)) return;
  select(tab);
  if (Object.keys(values).length === 0) return;
  fill(panelOf(tab).querySelector("form"), values);
  greet();
}

function greet() {
  const { tab, values } = opened();
  if (!TABS.includes(tab) || Object.keys(values).length === 0) return;
  const ours = modelOf(tab)?.id;
  const other = ours !== undefined && values.model && values.model !== ours;
  put(panelOf(tab).querySelector(".status"), other ? "state.other" : "state.opened", { theirs: values.model, ours });
}

function theme() {
  const choice = document.documentElement.dataset.choice;
  const now = say(`theme.${choice}`);
  const button = document.getElementById("theme");
  button.ariaLabel = button.title = say("theme.label", { now });
}

document.getElementById("theme").addEventListener("click", () => {
  const next = { auto: "light", light: "dark", dark: "auto" }[document.documentElement.dataset.choice];
  remember("theme", next);
  dispatchEvent(new Event("flaxgen-theme"));
  theme();
});
document.getElementById("language").addEventListener("click", switchLanguage);
document.getElementById("key-button").addEventListener("click", async () => {
  if (await changeKey()) meet().catch(() => {});
});
document.addEventListener("language", theme);
addEventListener("hashchange", open);

// What the server cannot do is said in the place of the form, with the way to change that.
document.addEventListener("models", () => {
  for (const name of TABS) {
    const panel = panelOf(name);
    const missing = !modelOf(name);
    panel.classList.toggle("without", missing);
    panel.querySelector(".absent")?.remove();
    if (missing) panel.append(absent(name));
  }
  put(document.getElementById("loaded"), "loaded", { names: modelNames().join(", ") });
  greet();
});

function absent(name) {
  const [what, how] = [make("h2"), make("p")];
  put(what, `none.${name}`);
  put(how, "none.how");
  const box = make("div", { className: "absent" }, what, how, make("pre", {}, `flaxgen serve ${FOLDERS[name]} FOLDER`));
  if (name === "reading") {
    const train = make("p");
    put(train, "none.train");
    box.append(train, make("pre", {}, "python -m train reading"));
  }
  return box;
}

for (const details of document.querySelectorAll("details")) details.open = matchMedia("(min-width: 60rem)").matches;
translate();
open();
meet().catch(() => {});
