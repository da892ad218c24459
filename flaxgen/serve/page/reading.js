// Reading: a question to passages, and the words that answer it lit up where they stand.
import { json, Trouble } from "./api.js";
import { make } from "./dom.js";
import { examples, operate, reveal } from "./panel.js";
import { copies, link } from "./share.js";
import { put } from "./words.js";

const MOST = 10;
const EXAMPLES = [
  {
    question: "青蛙的幼体叫什么？",
    passages: "青蛙是两栖动物，幼体叫蝌蚪，在水里用鳃呼吸，长大后用肺呼吸。\n\n青蛙捕食昆虫，一只青蛙一天能吃掉许多害虫。",
  },
  {
    question: "长城有多长？",
    passages: "长城东起山海关，西到嘉峪关。\n\n明长城的总长度为8851.8千米，历代长城的总长度为21196.18千米。",
  },
  { question: "月亮上有水吗？", passages: "太阳是一颗恒星，表面温度约为六千摄氏度。" },
];
const panel = document.getElementById("panel-reading");
const { passages, question, mode } = panel.querySelector("form").elements;
let shown = null;
let text = "";

const split = (pasted) => pasted.split(/\n\s*\n/).map((one) => one.trim()).filter(Boolean);

async function read({ signal, model, heard }) {
  const texts = split(passages.value);
  if (texts.length > MOST) throw new Trouble("many", { values: { most: MOST, count: texts.length } });
  shown = { question: question.value, passages: passages.value, mode: mode.value, model: String(model.id) };
  const body = { model: shown.model, question: shown.question, passages: texts, mode: shown.mode };
  const answer = await json("/v1/reading", { body, signal });
  if (typeof answer?.text !== "string") throw new Trouble("broken");
  heard();
  show(answer, texts);
  reveal(panel);
}

function show(answer, texts) {
  text = typeof answer.quote === "string" && answer.quote ? answer.quote : answer.text;
  const lines = [make("p", { className: text ? "quote" : "quote nothing" }, text), confidence(answer.confidence)];
  if (!text) put(lines[0], "reading.none");
  if (text && !answer.span) lines.push(note("reading.nowhere"));
  if (answer.question_cut) lines.push(note("reading.question_cut"));
  panel.querySelector(".answer").replaceChildren(...lines);
  panel.querySelector(".copy").hidden = !text;
  panel.querySelector(".passages").replaceChildren(...texts.map((one, number) => card(one, number, answer)));
}

function note(word) {
  const line = make("p", { className: "hint" });
  put(line, word);
  return line;
}

const percent = (chance) => Math.round(100 * Math.min(Math.max(Number(chance) || 0, 0), 1));

function confidence(chance) {
  const line = note("reading.confidence");
  put(line, "reading.confidence", { percent: percent(chance) });
  const bar = make("span", { className: "bar", ariaHidden: "true" });
  bar.style.setProperty("--chance", percent(chance) / 100);
  return make("div", { className: "confidence" }, bar, line);
}

function card(passage, number, answer) {
  const supports = text !== "" && answer.passage === number;
  const body = make("p", { className: "text" });
  if (supports && Array.isArray(answer.span)) body.append(...lit(passage, answer.span));
  else body.append(passage);
  const facts = make("p", { className: "hint" }, make("span"));
  const word = answer.dismissed?.includes(number) ? "reading.dismissed" : "reading.confidence";
  put(facts.firstChild, word, { percent: percent(answer.chances?.[number]) });
  if (answer.cut?.includes(number)) {
    facts.append(" · ", make("span"));
    put(facts.lastChild, "reading.cut");
  }
  return make("li", { className: supports ? "passage supports" : "passage" }, body, facts);
}

// Spans count code points, of which a JavaScript string may need two units for one.
function lit(passage, [from, to]) {
  const points = Array.from(passage);
  const part = (...ends) => points.slice(...ends).join("");
  return [part(0, from), make("mark", {}, part(from, to)), part(to)];
}

copies(panel.querySelector(".copy"), () => text);
copies(panel.querySelector(".share"), () => link("reading", shown));
examples(panel, EXAMPLES);
operate(panel, read);
