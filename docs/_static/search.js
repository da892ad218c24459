// The search page: the query of its address, and whatever is typed, against search-texts.js.
"use strict";

(() => {
  const AROUND = 70, LATER = 150;
  const input = document.getElementById("search-query");
  const state = document.getElementById("search-state");
  const list = document.getElementById("search-results");
  let indexed, timer;

  function element(name, className, ...children) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  }

  // The part of the text with the most of the query in it, those places marked; [begin, end] pairs in the text.
  function excerpt(text, asked) {
    const places = [];
    const folded = indexed.fold(text);
    const same = folded.length === text.length; // where folding moves characters, nothing is marked
    const told = (token, weight) => Math.min(weight, asked.weights.get(token) || 0) >= 0.4; // pairs and words, not single characters of Han
    if (same) for (const [token, weight, begin, end] of ranking.tokens(folded)) if (told(token, weight)) places.push([begin, end]);
    let best = 0, most = 0;
    for (let i = 0, j = 0; i < places.length; i++) {
      while (j < places.length && places[j][1] <= places[i][0] + 2 * AROUND) j++;
      if (j - i > most) [best, most] = [places[i][0], j - i];
    }
    const from = Math.max(0, best - AROUND / 2), to = Math.min(text.length, from + 3 * AROUND);
    const made = element("p", "excerpt", from > 0 ? "… " : "");
    let at = from;
    for (const [begin, end] of places) {
      if (begin < from || end > to || end <= at) continue;
      made.append(text.slice(at, Math.max(begin, at)), element("mark", "", text.slice(Math.max(begin, at), end)));
      at = end;
    }
    made.append(text.slice(at, to), to < text.length ? " …" : "");
    return made;
  }

  function link(page, section) {
    const made = element("a", "", section.anchor ? section.heading : page.title);
    made.href = page.uri + (section.anchor ? "#" + section.anchor : "");
    return made;
  }

  function show(query) {
    list.replaceChildren();
    if (!query.trim()) return void (state.textContent = "");
    indexed ??= ranking.index(searchTexts);
    const asked = ranking.read(indexed, query), found = ranking.search(indexed, query);
    const pages = `${found.length} ${found.length === 1 ? "page" : "pages"} · 共 ${found.length} 页`;
    state.textContent = found.length ? pages : "No page says that. · 没有找到。";
    for (const { page, hits } of found) {
      const item = element("li", "", element("h2", "", link(page, { anchor: "" })));
      for (const { section } of hits) {
        if (section.anchor) item.append(element("h3", "", link(page, section)));
        item.append(excerpt(section.text, asked));
      }
      list.append(item);
    }
  }

  input.value = new URLSearchParams(location.search).get("q") || "";
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => show(input.value), LATER);
  });
  show(input.value);
  input.focus();
})();
