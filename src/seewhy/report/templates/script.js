"use strict";
// Without this script the page follows the system's light or dark; with it the reader may choose.
const button = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
const name = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
try {
  const kept = localStorage.getItem("seewhy-theme");
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;
} catch { /* a browser that keeps nothing for files */ }
button.hidden = false;
name();
dark.addEventListener("change", name);
button.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("seewhy-theme", root.dataset.theme); } catch { /* as above */ }
  name();
});
