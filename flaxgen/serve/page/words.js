// What the page says, in Chinese and English. Elements carry the name of their words, so that a switch rewrites all of them.
import { zh } from "./words_zh.js";
import { en } from "./words_en.js";
import { recall, remember } from "./dom.js";

const WORDS = { zh, en };
let language = recall("language");
if (!(language in WORDS)) language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

export function say(name, values = {}) {
  return (WORDS[language][name] ?? name).replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

// The name of a class as people of this language call it; a model may have classes that nobody translated.
export const called = (name) => (language === "zh" ? (zh.classes[name] ?? name) : name);

export function put(element, name, values = {}) {
  element.dataset.word = name;
  element.dataset.values = JSON.stringify(values);
  element.textContent = say(name, values);
}

export function quiet(element) {
  delete element.dataset.word;
  element.textContent = "";
}

export function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-word]")) {
    element.textContent = say(element.dataset.word, JSON.parse(element.dataset.values ?? "{}"));
  }
  for (const element of document.querySelectorAll("[data-word-label]")) element.setAttribute("aria-label", say(element.dataset.wordLabel));
  for (const element of document.querySelectorAll("[data-word-placeholder]")) element.placeholder = say(element.dataset.wordPlaceholder);
  document.dispatchEvent(new Event("language"));
}

export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  remember("language", language);
  translate();
}
