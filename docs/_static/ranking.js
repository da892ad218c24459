// Which pages answer a query. Chinese is not cut into words: runs of Han characters are read as pairs of neighbours.
"use strict";

const ranking = (() => {
  // What says that something is asked, not what about.
  const HAN_ASKING = new RegExp(
    "为什么|是什么|有什么|什么样|什么|怎么样|怎么办|怎么|怎样|如何|哪些|哪里|哪个|哪种|请问|请教|能不能|能否|可不可以|可以|是不是|是否|有没有|多少|"
    + "一个|一种|一下|这个|那个|我们|我想|关于|应该|需要|[的了吗呢吧啊呀]", "g");
  const LATIN_ASKING = new Set((
    "a an and are as at be by can do does for from how i in is it my of on or that the this to was we what when where which who why with you"
  ).split(" "));
  // What a question about anything may hold counts little beside the rest.
  const GENERAL = new RegExp(
    "教程|教学|使用|入门|体验|介绍|说明|讲解|原理|实现|方法|办法|方案|技巧|实战|示例|模型|系统|程序|任务|问题|基于|利用|借助|通过|根据|进行|"
    + "人工智能|神经网络|深度学习|机器|电脑|(?<![a-z])ai(?![a-z])", "g");
  const RUN = /\p{Script=Han}+|(?:(?!\p{Script=Han})[\p{L}\p{N}_])+/gu;
  const HAN = /^\p{Script=Han}/u;
  const WEIGHT = { heading: 2, named: 2.2, single: 0.15, stem: 0.4, general: 0.2, synonym: 0.8 };
  const SATURATION = 1.2, BY_LENGTH = 0.5, SHOWN = 3;
  // The share of a query's characters that must be in a section, `least` of them at least, or else in what names it.
  const COVERED = { all: 0.4, least: 3, named: 0.25 };
  const STEM = 5, SENTENCE = 12;

  // Traditional characters are read as Simplified ones, in pages and queries alike.
  const fold = (text, simplified) => [...text.normalize("NFKC").toLowerCase()].map((each) => simplified[each] || each).join("");

  // [token, weight, where it begins, where it ends] of everything in a folded text that can be looked for.
  function* tokens(text) {
    for (const found of text.matchAll(RUN)) {
      const run = found[0], at = found.index;
      if (HAN.test(run)) {
        const characters = [...run];
        let place = at;
        for (let i = 0; i < characters.length; i++) {
          const end = place + characters[i].length;
          yield [characters[i], characters.length === 1 ? 1 : WEIGHT.single, place, end];
          if (i + 1 < characters.length) yield [characters[i] + characters[i + 1], 1, place, end + characters[i + 1].length];
          place = end;
        }
        continue;
      }
      yield [run, 1, at, at + run.length];
      const parts = run.split("_").filter(Boolean);
      if (parts.length > 1) for (const part of parts) yield [part, WEIGHT.stem, at, at + run.length];
      if (run.length > STEM) yield [run.slice(0, STEM) + "…", WEIGHT.stem, at, at + run.length];
    }
  }

  function count(folded) {
    const counts = new Map();
    for (const [token] of tokens(folded)) counts.set(token, (counts.get(token) || 0) + 1);
    return counts;
  }

  const add = (frequency, keys) => {
    for (const token of keys) frequency.set(token, (frequency.get(token) || 0) + 1);
  };

  // A section is found by its text, its heading and what it defines, and its page's names: title and tags.
  // How rare a token is among texts and among names is counted apart: what names one page may be said on many.
  function index({ pages, synonyms, simplified }) {
    const folds = (...texts) => fold(texts.join(" | "), simplified);
    const sections = [], frequency = new Map(), names = new Map();
    let total = 0;
    for (const page of pages) {
      const named = count(folds(page.title, ...page.tags));
      add(names, named.keys());
      for (const section of page.sections) {
        const text = count(folds(section.text)), heading = count(folds(section.heading, ...section.terms));
        let length = 0;
        for (const times of text.values()) length += times;
        total += length;
        sections.push({ page, section, text, heading, named, length, said: plain(folds(...page.tags, section.text)) });
        add(frequency, new Set([...text.keys(), ...heading.keys()]));
      }
    }
    // A Latin word is no part of a longer one.
    const within = (word) => new RegExp(HAN.test(word) ? word : `(?<![a-z0-9_])${word}(?![a-z0-9_])`);
    const groups = synonyms.map((group) => group.map((word) => folds(word)).map((word) => ({ within: within(word), tokens: whole(word) })));
    return { sections, frequency, names, groups, fold: folds, pages: pages.length, mean: total / Math.max(sections.length, 1) };
  }

  // Its words and pairs, without single characters and stems.
  const whole = (folded) => [...tokens(folded)].filter(([, weight]) => weight === 1).map(([token]) => token);

  // The query's tokens by weight, the characters that each of them covers, and the synonyms of words in it.
  function read(indexed, query) {
    const folded = indexed.fold(query);
    const asked = folded.replace(HAN_ASKING, (gone) => " ".repeat(gone.length));
    const all = (text) => [...tokens(text)].filter(([token]) => !LATIN_ASKING.has(token));
    const wanted = all(asked).length ? all(asked) : [...tokens(folded)];
    const general = new Set(), weights = new Map(), covers = new Set();
    for (const found of asked.matchAll(GENERAL)) cover(general, found.index, found.index + found[0].length);
    for (const [token, weight, begin, end] of wanted) {
      const only = range(begin, end).every((place) => general.has(place));
      weights.set(token, Math.max(weights.get(token) || 0, weight * (only ? WEIGHT.general : 1)));
      cover(covers, begin, end);
    }
    return { wanted, weights, replaced: replaced(indexed, asked, general), size: covers.size, phrase: plain(folded) };
  }

  // { begin, end, tokens, others } of every word of the query that has synonyms, unless it is general.
  function replaced(indexed, asked, general) {
    const found = [];
    for (const group of indexed.groups) {
      for (const each of group) {
        const match = asked.match(each.within);
        if (!match || range(match.index, match.index + match[0].length).every((place) => general.has(place))) continue;
        const others = group.filter((other) => other !== each).map((other) => other.tokens);
        found.push({ begin: match.index, end: match.index + match[0].length, tokens: each.tokens, others });
      }
    }
    return found;
  }

  const range = (begin, end) => Array.from({ length: end - begin }, (_, i) => begin + i);
  const cover = (places, begin, end) => range(begin, end).forEach((place) => places.add(place));
  const plain = (folded) => folded.replace(/[^\p{L}\p{N}]+/gu, "");
  const rarity = (times, all) => Math.log(1 + (all - times + 0.5) / (times + 0.5));
  const rare = (indexed, token) => rarity(indexed.frequency.get(token) || 0, indexed.sections.length);

  function search(indexed, query) {
    const asked = read(indexed, query);
    if (!asked.weights.size) return [];
    const all = [...asked.weights].reduce((sum, [token, weight]) => sum + weight * rare(indexed, token), 0);
    const pages = new Map();
    for (const entry of indexed.sections) {
      const hit = score(indexed, entry, asked);
      if (!hit) continue;
      // More than BM25 can give: what says the very words comes before whatever does not.
      if (asked.phrase.length >= SENTENCE && entry.said.includes(asked.phrase)) hit.score += (SATURATION + 1 + WEIGHT.named) * all;
      const found = pages.get(entry.page) || { page: entry.page, hits: [] };
      found.hits.push(hit);
      pages.set(entry.page, found);
    }
    for (const found of pages.values()) {
      found.hits.sort((a, b) => b.score - a.score);
      found.score = found.hits[0].score;
      found.hits = found.hits.filter((hit, place) => hit.own || !place).slice(0, SHOWN);
    }
    return [...pages.values()].sort((a, b) => b.score - a.score);
  }

  // Okapi BM25 over text and heading (Robertson and Zaragoza 2009, section 3.6), and what the names say added to it; null where
  // too little of the query is there.
  function score(indexed, entry, asked) {
    const shorter = 1 - BY_LENGTH + (BY_LENGTH * entry.length) / indexed.mean;
    const named = (token) => entry.named.has(token), there = (token) => named(token) || here(token) > 0;
    const here = (token) => (entry.text.get(token) || 0) / shorter + WEIGHT.heading * (entry.heading.get(token) || 0);
    const gain = (token) => {
      const times = here(token);
      const text = times && (rare(indexed, token) * times * (SATURATION + 1)) / (times + SATURATION);
      return text + (named(token) ? WEIGHT.named * rarity(indexed.names.get(token), indexed.pages) : 0);
    };
    // Of a word all of whose pairs are there.
    const mean = (word) => (word.every(there) ? word.reduce((sum, token) => sum + gain(token), 0) / word.length : 0);
    const inNames = new Set(), anywhere = new Set();
    let sum = 0, own = false;
    for (const [token, weight] of asked.weights) sum += weight * gain(token);
    for (const [token, weight, begin, end] of asked.wanted) {
      if (here(token) && weight > WEIGHT.stem) own = true;
      if (weight === WEIGHT.single || !there(token)) continue;
      cover(anywhere, begin, end);
      if (named(token)) cover(inNames, begin, end);
    }
    for (const { begin, end, tokens, others } of asked.replaced) {
      // A synonym stands in for the word; it adds nothing where the word is.
      sum += Math.max(0, WEIGHT.synonym * Math.max(...others.map(mean)) - mean(tokens));
      if (others.some((word) => word.every(there))) cover(anywhere, begin, end);
      if (others.some((word) => word.every(named))) cover(inNames, begin, end);
    }
    const least = Math.max(COVERED.all * asked.size, Math.min(COVERED.least, asked.size));
    const enough = anywhere.size >= least || inNames.size >= COVERED.named * asked.size;
    return enough ? { section: entry.section, score: sum, own } : null;
  }

  return { index, read, search, tokens };
})();

if (typeof module !== "undefined") module.exports = ranking;
