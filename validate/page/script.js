"use strict";
(() => {
  const root = document.documentElement;

  // The theme: of the system, or chosen. A page from a file may have no storage.
  const button = document.getElementById("theme");
  const names = { "": "automatic", light: "light", dark: "dark" };
  const setTheme = (theme) => {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    button.firstElementChild.textContent = names[theme];
  };
  const stored = () => { try { return localStorage.getItem("theme") || ""; } catch { return ""; } };
  let theme = names[stored()] ? stored() : "";
  button.hidden = false;
  setTheme(theme);
  button.addEventListener("click", () => {
    const order = Object.keys(names);
    theme = order[(order.indexOf(theme) + 1) % order.length];
    try { localStorage.setItem("theme", theme); } catch { /* the choice lasts as long as the page */ }
    setTheme(theme);
  });

  // A link into folded figures unfolds them.
  const reveal = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (!target.closest("details")) return;
    target.scrollIntoView({ block: "start" });
    target.focus({ preventScroll: true });
    target.classList.add("flash");
    setTimeout(() => target.classList.remove("flash"), 1500);
  };
  addEventListener("hashchange", reveal);
  reveal();
  addEventListener("beforeprint", () => document.querySelectorAll("main details:not(.variant)").forEach((d) => { d.open = true; }));

  // The figures of what the pointer is on in a chart.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.("figure [role='graphics-symbol'][aria-label]");
    tip.hidden = !mark || mark.getAttribute("aria-roledescription") === "axis";
    if (tip.hidden) return;
    tip.textContent = mark.getAttribute("aria-label");
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 8))}px`;
    tip.style.top = `${Math.max(4, event.clientY - box.height - 10)}px`;
  });

  // The word that is heard.
  for (const audio of document.querySelectorAll("audio")) {
    const words = [...audio.closest("article").querySelectorAll("[data-s]")].map((element) => ({
      element, start: Number(element.dataset.s), end: Number(element.dataset.e),
    }));
    const show = () => {
      const now = audio.currentTime;
      const heard = !audio.ended && (!audio.paused || now > 0);
      for (const word of words) word.element.classList.toggle("now", heard && now >= word.start && now < word.end + 0.08);
      if (!audio.paused && !audio.ended) requestAnimationFrame(show);
    };
    for (const name of ["play", "seeked", "pause", "ended"]) audio.addEventListener(name, show);
    audio.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    });
  }

  // Only what one variant wrote.
  const only = document.getElementById("only");
  if (only) {
    only.parentElement.hidden = false;
    const choose = () => {
      for (const card of document.querySelectorAll(".card")) {
        for (const group of card.querySelectorAll(".group")) {
          group.hidden = only.value !== "" && !group.dataset.of.split(" ").includes(only.value);
        }
        card.hidden = !card.querySelector(".group:not([hidden])");
      }
    };
    only.addEventListener("change", choose);
    choose();
  }
})();
