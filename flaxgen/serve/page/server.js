// What the server has loaded, and whether it is warm.
import { json, Trouble } from "./api.js";
import { put } from "./words.js";

const PAUSE = 1500;
const TASKS = { story: "completions", couplet: "couplets", reading: "reading", pictures: "images" };
let models = [];
let warm = null;
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// The model behind a tab; undefined where the server has none.
export const modelOf = (tab) => models.find((model) => model?.task === TASKS[tab]);

export const modelNames = () => [...new Set(models.map((model) => String(model?.id)))];

// Resolves once the models are warm; tells the header and, by the event "models", the panels how far it is.
export function meet() {
  warm ??= meeting().catch((error) => {
    warm = null;
    throw error;
  });
  return warm;
}

async function meeting() {
  const state = document.getElementById("server-state");
  const tell = (word, values) => {
    put(state, `server.${word}`, values);
    state.dataset.state = word;
  };
  tell("meeting");
  for (; ; await pause(PAUSE)) {
    try {
      const { ready, warming } = await json("/ready", { any: true });
      if (ready) break;
      tell("warming", { what: warming });
    } catch (error) {
      if (!(error instanceof Trouble) || error.kind === "key") {
        tell("locked");
        throw error;
      }
      tell("away");
    }
  }
  const { data } = await json("/v1/models");
  models = Array.isArray(data) ? data : [];
  document.dispatchEvent(new Event("models"));
  tell("ready");
}
