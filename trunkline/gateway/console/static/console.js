// What every page of the console needs: times in the viewer's zone, the menu on a telephone, light or dark, and what
// htmx is told when an answer is an error.
"use strict";

const kinds = {
  time: { hour: "2-digit", minute: "2-digit", second: "2-digit" },
  day: { year: "numeric", month: "short", day: "numeric" },
  both: { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" },
};

// Made once: a page may have hundreds of times.
const formats = Object.fromEntries(Object.entries(kinds).map(([kind, parts]) => [kind, new Intl.DateTimeFormat(undefined, parts)]));
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function showTimes(root) {
  for (const each of root.querySelectorAll("time[datetime]:not([data-shown])")) {
    const at = new Date(each.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    each.title = `${full.format(at)} (${full.resolvedOptions().timeZone})`;
    each.textContent = (formats[each.dataset.kind] || formats.both).format(at);
    each.dataset.shown = "";
  }
}

function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
}

theme(localStorage.getItem("theme"));
document.addEventListener("DOMContentLoaded", () => {
  showTimes(document);
  document.querySelector("[data-menu]")?.addEventListener("click", (event) => {
    const open = document.body.classList.toggle("menu-open");
    event.currentTarget.setAttribute("aria-expanded", String(open));
  });
  document.querySelector("[data-theme-toggle]")?.addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    localStorage.setItem("theme", dark ? "light" : "dark");
    theme(dark ? "light" : "dark");
  });
  // A form whose button needs a second thought says so in data-sure.
  document.addEventListener("submit", (event) => {
    const sure = event.target.dataset?.sure;
    if (sure && !confirm(sure)) event.preventDefault();
  });
});
document.addEventListener("htmx:afterSwap", (event) => showTimes(event.target));
document.addEventListener("htmx:beforeSwap", (event) => {
  // A page that tells what is wrong is shown as any other.
  if ([409, 412, 422].includes(event.detail.xhr.status)) {
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  }
});
document.addEventListener("htmx:sendError", () => say("The gateway does not answer. Trying again when you do."));
document.addEventListener("htmx:responseError", (event) => say(`That did not work (${event.detail.xhr.status}).`));

function say(text) {
  const said = document.getElementById("said");
  if (said) said.textContent = text;
}
