// A couplet on two scrolls of red paper, written from top to bottom: the upper line at the right, the lower one at the left.
import { make } from "./dom.js";

const COLUMN = 12; // characters of one column; a longer line takes several, from the outer edge to the inner one
const PUNCTUATION = /[\p{P}\p{S}\s]/u;
const [SIZE, PITCH, MARGIN] = [96, 117, 53];

// [[{character, place}, …] a column]: what is written, without punctuation, which paper does without; places are those of the line.
export function columns(line) {
  const written = Array.from(line, (character, place) => ({ character, place })).filter(({ character }) => !PUNCTUATION.test(character));
  const count = Math.max(Math.ceil(written.length / COLUMN), 1);
  const length = Math.ceil(written.length / count);
  return Array.from({ length: count }, (_, number) => written.slice(number * length, (number + 1) * length));
}

// `glyph` makes the element of one character.
export function scroll(side, line, glyph) {
  const sheets = columns(line).map((column) => make("span", { className: "column" }, ...column.map(glyph)));
  return make("div", { className: `scroll ${side}` }, ...sheets);
}

// The same as a picture.
export function draw(upper, lower) {
  const [right, left] = [columns(upper), columns(lower)];
  const width = (sheets) => sheets.length * PITCH + MARGIN;
  const height = Math.max(right[0].length, left[0].length) * PITCH + 2 * MARGIN;
  const canvas = make("canvas", { width: width(right) + width(left) + 3 * SIZE, height: height + 2 * SIZE });
  const brush = canvas.getContext("2d");
  brush.fillStyle = "#f4eee2";
  brush.fillRect(0, 0, canvas.width, canvas.height);
  paper(brush, left, SIZE, width(left), height, 1);
  paper(brush, [...right].reverse(), canvas.width - SIZE - width(right), width(right), height, 2);
  return canvas;
}

function paper(brush, sheets, left, width, height, seed) {
  brush.save();
  brush.translate(left, SIZE);
  brush.fillStyle = "#b8201f";
  brush.fillRect(0, 0, width, height);
  fleck(brush, width, height, seed);
  brush.strokeStyle = "#7d0f14";
  brush.lineWidth = 4;
  brush.strokeRect(2, 2, width - 4, height - 4);
  brush.lineWidth = 2;
  brush.strokeRect(11, 11, width - 22, height - 22);
  brush.fillStyle = "#17100d";
  brush.font = `${SIZE}px ${getComputedStyle(document.documentElement).getPropertyValue("--kai")}`;
  brush.textAlign = "center";
  brush.textBaseline = "middle";
  sheets.forEach((column, number) =>
    column.forEach(({ character }, row) => brush.fillText(character, MARGIN / 2 + (number + 0.5) * PITCH, MARGIN + (row + 0.5) * PITCH)),
  );
  brush.restore();
}

// Gold dust (洒金), the same on every sheet of one seed.
function fleck(brush, width, height, seed) {
  let state = seed;
  const next = () => (state = (state * 48271) % 2147483647) / 2147483647;
  brush.fillStyle = "#d6963c";
  for (let grain = 0; grain < (3 * width * height) / SIZE ** 2; grain++) {
    brush.beginPath();
    brush.arc(next() * width, next() * height, 0.5 + next(), 0, 2 * Math.PI);
    brush.fill();
  }
}
