// Story: a text that goes on while one watches, several at once if wanted.
import { events, Trouble } from "./api.js";
import { make, randomSeed } from "./dom.js";
import { examples, operate, reveal, sliders } from "./panel.js";
import { modelOf } from "./server.js";
import { copies, link } from "./share.js";
import { put } from "./words.js";

const EXAMPLES = ["床前明月光", "春江花月夜", "《登高》", "七绝《秋思》", "今天天气不错"];
const panel = document.getElementById("panel-story");
const { prompt, temperature, top_p, tokens, samples, seed } = panel.querySelector("form").elements;
const papers = panel.querySelector(".papers");
let shown = null; // what the texts on the page were asked with

async function write({ signal, model, heard }) {
  const asked = {
    prompt: prompt.value,
    temperature: temperature.value,
    top_p: top_p.value,
    tokens: tokens.value,
    samples: samples.value,
    seed: seed.value === "" ? randomSeed() : Number(seed.value),
    model: String(model.id),
  };
  const sheets = Array.from({ length: Number(asked.samples) }, (_, number) => sheet(asked.prompt, number, Number(asked.samples)));
  try {
    for await (const chunk of events("/v1/completions", request(asked), signal)) {
      if (!Array.isArray(chunk?.choices)) throw new Trouble("broken");
      heard();
      if (shown !== asked) show(asked, sheets);
      for (const { index, text, finish_reason } of chunk.choices) sheets[index]?.take(text, finish_reason);
    }
  } finally {
    for (const one of sheets) one.close();
  }
}

// Only now, so that what is refused leaves what was there.
function show(asked, sheets) {
  shown = asked;
  papers.replaceChildren(...sheets.map((one) => one.paper));
  put(panel.querySelector(".told"), "story.facts", shown);
  reveal(panel);
}

function request(asked) {
  return {
    model: asked.model,
    prompt: asked.prompt,
    max_tokens: Math.max(Math.min(Number(asked.tokens), room(asked.prompt)), 1),
    temperature: Number(asked.temperature),
    top_p: Number(asked.top_p),
    n: Number(asked.samples),
    seed: asked.seed,
    stream: true,
  };
}

// Tokens left in the model's context, as far as one can tell from here: a Chinese character is a token of its own.
function room(text) {
  const characters = text.match(/[\p{Script=Han}\u3000-\u303f\uff00-\uffef]/gu) ?? [];
  return (modelOf("story").context ?? Infinity) - characters.length;
}

function sheet(beginning, number, count) {
  const written = document.createTextNode("");
  const end = make("p", { className: "end" });
  const copier = make("button", { type: "button", className: "plain" });
  put(copier, "copy");
  copies(copier, () => beginning + written.data);
  const given = make("span", { className: "given" }, beginning);
  const body = make("p", { className: "text" }, given, make("span", { className: "new" }, written));
  const title = make("h2", { hidden: count === 1 });
  put(title, "story.paper", { number: number + 1 });
  const paper = make("article", { className: "paper writing" }, title, body, make("div", { className: "below" }, end, copier));
  return {
    paper,
    take(text, reason) {
      if (typeof text === "string") written.appendData(text);
      if (reason) {
        put(end, reason === "stop" ? "story.stop" : "story.length_end");
        paper.classList.remove("writing");
      }
    },
    close() {
      if (!end.dataset.word) put(end, "story.cut");
      paper.classList.remove("writing");
    },
  };
}

document.addEventListener("models", () => {
  const context = modelOf("story")?.context;
  if (!Number.isInteger(context) || context < 16) return;
  tokens.max = Math.min(context - 32 > 8 ? context - 32 : context, 1024);
  tokens.dispatchEvent(new Event("input"));
});
panel.querySelector(".keep").addEventListener("click", () => (seed.value = shown.seed));
copies(panel.querySelector(".share"), () => link("story", shown));
examples(panel, EXAMPLES.map((one) => ({ prompt: one })));
sliders(panel);
operate(panel, write);
