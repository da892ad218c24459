// Pictures: a grid that refines as the chain runs.
import { events, Trouble } from "./api.js";
import { calm, download, make, randomSeed, saveCanvas } from "./dom.js";
import { operate, reveal, sliders } from "./panel.js";
import { modelOf } from "./server.js";
import { copies, link, opened } from "./share.js";
import { called, put, say } from "./words.js";

const FRAMES = 40;
const SCALE = 6; // pixels of a pixel in the picture of all
const panel = document.getElementById("panel-pictures");
const { label, samples, moves, seed } = panel.querySelector("form").elements;
const grid = panel.querySelector(".grid");
const progress = panel.querySelector("progress");
let shown = null;
let cells = [];

async function paint({ signal, model, heard }) {
  const asked = {
    label: label.value,
    samples: samples.value,
    moves: steps() ? moves.value : "",
    seed: seed.value === "" ? randomSeed() : Number(seed.value),
    model: String(model.id),
  };
  for await (const frame of events("/v1/images", request(asked), signal)) {
    if (!Array.isArray(frame?.data)) throw new Trouble("broken");
    heard();
    if (shown !== asked) show(asked);
    draw(frame);
  }
}

// Only now, so that what is refused leaves what was there.
function show(asked) {
  shown = asked;
  cells = [];
  grid.replaceChildren();
  put(panel.querySelector(".told"), "pictures.facts", { ...shown, moves: shown.moves || 1 });
  reveal(panel);
}

function request(asked) {
  const body = { model: asked.model, samples: Number(asked.samples), seed: asked.seed, stream: true };
  if (asked.label !== "") body.label = asked.label;
  if (asked.moves !== "") {
    body.moves = Number(asked.moves);
    body.every = Math.min(Math.ceil(body.moves / (calm() ? 4 : FRAMES)), 50);
  }
  return body;
}

function draw({ move, moves: all, data }) {
  while (cells.length < Math.min(data.length, 16)) cells.push(cell(cells.length));
  data.slice(0, 16).forEach((image, number) => cells[number].take(image));
  progress.max = Math.max(Number(all) || 1, 1);
  progress.value = Number(move) || 0;
  put(panel.querySelector(".status"), "pictures.move", { move: Number(move) || 0, moves: Number(all) || 0 });
}

function cell(number) {
  const image = make("img", { alt: "", decoding: "sync" });
  const name = make("span");
  const save = make("button", { type: "button", className: "plain" }, "↓");
  save.addEventListener("click", () => download(`flaxgen-${shown.seed}-${number + 1}.png`, image.src));
  grid.append(make("li", {}, image, make("div", { className: "below" }, name, save)));
  let given = "";

  function caption() {
    name.textContent = called(given);
    image.alt = say("pictures.alt", { number: number + 1, label: called(given) || say("pictures.image") });
    save.ariaLabel = say("pictures.one", { number: number + 1 });
  }

  function take({ b64_json, label: word }) {
    if (typeof b64_json !== "string" || !/^[A-Za-z0-9+/]+=*$/.test(b64_json)) throw new Trouble("broken");
    image.src = `data:image/png;base64,${b64_json}`;
    given = typeof word === "string" ? word : "";
    caption();
  }
  return { image, take, caption };
}

// All images side by side, each pixel large enough to be seen anywhere.
function saveAll() {
  const columns = Math.ceil(Math.sqrt(cells.length));
  const [width, height] = [cells[0].image.naturalWidth, cells[0].image.naturalHeight];
  const canvas = make("canvas", { width: columns * width * SCALE, height: Math.ceil(cells.length / columns) * height * SCALE });
  const brush = canvas.getContext("2d");
  brush.imageSmoothingEnabled = false;
  cells.forEach(({ image }, number) => {
    const [x, y] = [number % columns, Math.floor(number / columns)];
    brush.drawImage(image, x * width * SCALE, y * height * SCALE, width * SCALE, height * SCALE);
  });
  saveCanvas(canvas, `flaxgen-${shown.seed}.png`);
}

// What a link brought along before the classes and moves were known that it may name.
const linked = () => (opened().tab === "pictures" ? opened().values : {});

// What the loaded model can paint, and how far its chain usually goes.
function offer(chosen) {
  const model = modelOf("pictures");
  const classes = Array.isArray(model?.classes) ? model.classes.map(String) : [];
  const option = (name) => make("option", { value: name }, name === "" ? say("pictures.any") : called(name));
  label.replaceChildren(...["", ...classes].map(option));
  if (classes.includes(chosen)) label.value = chosen;
  document.getElementById("classes").hidden = classes.length === 0;
}

// How many moves the model usually makes; 0 for one that paints at once, such as a flow.
function steps() {
  const usually = modelOf("pictures")?.moves;
  return usually > 1 ? usually : 0;
}

function usual() {
  document.getElementById("moves").hidden = !steps();
  if (steps() && !linked().moves) moves.value = steps();
  moves.dispatchEvent(new Event("input"));
}

document.addEventListener("models", () => {
  offer(linked().label);
  usual();
});
document.addEventListener("language", () => {
  offer(label.value);
  for (const one of cells) one.caption();
});
panel.querySelector(".keep").addEventListener("click", () => (seed.value = shown.seed));
panel.querySelector(".save").addEventListener("click", saveAll);
copies(panel.querySelector(".share"), () => link("pictures", shown));
sliders(panel);
operate(panel, paint);
