// What Sphinx's HTML lacks for a keyboard and a screen reader.
"use strict";

(() => {
  // What scrolls inside itself can be reached, and so scrolled, by the keyboard.
  function reach() {
    for (const each of document.querySelectorAll("article :is(pre, .table-wrapper, div.math, mjx-container)")) {
      if (each.scrollWidth > each.clientWidth + 1) each.tabIndex = 0;
      else each.removeAttribute("tabindex");
    }
  }

  for (const each of document.querySelectorAll("p.caption[role=heading]")) each.setAttribute("aria-level", "2");
  // Parameters over several lines are a <dl> of <dd> alone, which is no list of definitions.
  for (const each of document.querySelectorAll("dt.sig dl, dt.sig dl > dd")) each.setAttribute("role", "none");
  addEventListener("resize", reach);
  addEventListener("load", () => {
    reach();
    window.MathJax?.startup?.promise?.then(reach);
  });
})();
