// Runs before the first paint, so that a dark page never flashes white. "auto" follows the system.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  function apply() {
    let chosen = null;
    try {
      chosen = localStorage.getItem("flaxgen.theme");
    } catch {
      // Storage may be forbidden; the page works without.
    }
    root.dataset.choice = chosen === "light" || chosen === "dark" ? chosen : "auto";
    root.dataset.theme = root.dataset.choice === "auto" ? (dark.matches ? "dark" : "light") : root.dataset.choice;
  }
  dark.addEventListener("change", apply);
  addEventListener("flaxgen-theme", apply);
  apply();
})();
