// Sets the chosen colours before anything is painted, and lets the button change them.
"use strict";
(() => {
  const KEY = "monofs-theme";
  const ORDER = ["auto", "light", "dark"];
  const read = () => {
    try {
      const kept = localStorage.getItem(KEY);
      return ORDER.includes(kept) ? kept : "auto";
    } catch {
      return "auto";
    }
  };
  let theme = read();
  const apply = () => {
    const root = document.documentElement;
    root.classList.add("js");
    if (theme === "auto") root.removeAttribute("data-theme");
    else root.dataset.theme = theme;
    const label = document.querySelector("[data-theme-word]");
    if (label) label.textContent = theme;
  };
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.querySelector("[data-theme-button]")?.addEventListener("click", () => {
      theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
      try {
        localStorage.setItem(KEY, theme);
      } catch {
        // Without storage it holds for this page.
      }
      apply();
    });
  });
})();
