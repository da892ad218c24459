// Couplet: the upper line given, lower ones to page through, and every character open to change.
import { json, Trouble } from "./api.js";
import { make, saveCanvas } from "./dom.js";
import { choose, dismiss } from "./others.js";
import { examples, operate, reveal, sliders } from "./panel.js";
import { draw, scroll } from "./scrolls.js";
import { modelOf } from "./server.js";
import { copies, link } from "./share.js";
import { put, say } from "./words.js";

const ALTERNATIVES = 8;
const RULES = ["tones", "ends", "repeats", "fresh"];
const EXAMPLES = ["晚风摇树树还挺", "明月松间照", "今天天气不错", "鱼跃此时海", "春风又绿江南岸"];
const panel = document.getElementById("panel-couplet");
const fields = panel.querySelector("form").elements;
const part = (name) => panel.querySelector(name);
let shown = null;
let answers = []; // of the server, each with `now`, its characters as the user changed them
let turn = 0;

async function answer({ signal, model, heard }) {
  const rules = Object.fromEntries(RULES.map((name) => [name, fields[name].checked]));
  const asked = { line: fields.line.value.trim(), best: fields.best.value, model: String(model.id) };
  const body = { model: asked.model, line: asked.line, best: Number(asked.best), alternatives: ALTERNATIVES, rules };
  const { couplets } = await json("/v1/couplets", { body, signal });
  const sound = (one) => typeof one?.text === "string" && typeof one.upper === "string";
  if (!Array.isArray(couplets) || couplets.length === 0 || !couplets.every(sound)) throw new Trouble("broken");
  heard();
  for (const name of RULES) asked[name] = rules[name] ? "1" : "0";
  shown = asked;
  answers = couplets.map((one) => ({ ...one, now: Array.from(one.text) }));
  reveal(panel);
  turnTo(0);
}

function turnTo(number) {
  dismiss();
  turn = number;
  const { upper, now, score, unknown } = answers[turn];
  const right = scroll("upper", upper, ({ character }) => make("span", { className: "glyph" }, character));
  const left = scroll("lower", now.join(""), glyph);
  right.setAttribute("role", "img");
  right.ariaLabel = say("couplet.upper", { line: upper });
  left.setAttribute("role", "group");
  left.ariaLabel = say("couplet.lower", { line: now.join("") });
  part(".scrolls").replaceChildren(right, left);
  put(part(".page"), "couplet.page", { number: turn + 1, count: answers.length });
  part(".before").disabled = turn === 0;
  part(".after").disabled = turn === answers.length - 1;
  const told = make("span");
  const changed = now.filter((character, place) => character !== Array.from(answers[turn].text)[place]).length;
  if (changed) put(told, "couplet.edited", { count: changed });
  else put(told, "couplet.score", { score: Number.isFinite(score) ? score.toFixed(2) : "?", model: shown.model });
  part(".told").replaceChildren(told);
  if (unknown) {
    const strange = make("span");
    put(strange, "couplet.unknown", { characters: unknown });
    part(".told").append(" · ", strange);
  }
}

// A character of the lower line: a button that opens the others that might stand there.
function glyph({ character, place }) {
  const { text, alternatives, now } = answers[turn];
  const button = make("button", { type: "button", className: "glyph" }, character);
  button.classList.toggle("changed", character !== Array.from(text)[place]);
  button.dataset.place = place;
  button.ariaLabel = say("couplet.place", { character, number: place + 1 });
  button.setAttribute("aria-haspopup", "menu");
  button.setAttribute("aria-expanded", "false");
  const others = Array.isArray(alternatives?.[place]) ? alternatives[place] : [];
  button.disabled = others.length === 0;
  button.addEventListener("click", () =>
    choose(button, say("couplet.others", { number: place + 1 }), others, (other) => {
      now[place] = other;
      turnTo(turn);
      part(`[data-place="${place}"]`)?.focus();
    }),
  );
  return button;
}

part(".before").addEventListener("click", () => turnTo(turn - 1));
part(".after").addEventListener("click", () => turnTo(turn + 1));
part(".save").addEventListener("click", () => {
  const { upper, now } = answers[turn];
  saveCanvas(draw(upper, now.join("")), "flaxgen-couplet.png");
});
document.addEventListener("models", () => {
  const most = modelOf("couplet")?.characters;
  if (most > 0) fields.line.maxLength = most;
});
document.addEventListener("language", () => answers.length && turnTo(turn));
copies(part(".copy"), () => `${answers[turn].upper}\n${answers[turn].now.join("")}`);
copies(part(".share"), () => link("couplet", shown));
examples(panel, EXAMPLES.map((one) => ({ line: one })));
sliders(panel);
operate(panel, answer);
