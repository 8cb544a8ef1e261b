// The script's editor: line numbers beside the text, and a problem's line where it is clicked.
"use strict";

function openEditor(area) {
  const gutter = area.parentElement.querySelector("[data-lines]");
  let lines = 0;
  const number = () => {
    const now = area.value.split("\n").length;
    if (now !== lines) gutter.textContent = Array.from({ length: now }, (_, at) => at + 1).join("\n");
    lines = now;
  };
  area.addEventListener("input", number);
  area.addEventListener("scroll", () => { gutter.scrollTop = area.scrollTop; });
  number();
}

function toLine(area, line) {
  const rows = area.value.split("\n");
  const from = rows.slice(0, line - 1).reduce((sum, row) => sum + row.length + 1, 0);
  area.focus();
  area.setSelectionRange(from, from + (rows[line - 1] || "").length);
  const height = parseFloat(getComputedStyle(area).lineHeight);
  area.scrollTop = Math.max(0, (line - 5) * height);
}

document.addEventListener("DOMContentLoaded", () => {
  const area = document.querySelector("[data-editor]");
  if (!area) return;
  openEditor(area);
  document.addEventListener("click", (event) => {
    const line = event.target.closest?.("[data-line]");
    if (!line) return;
    event.preventDefault();
    toLine(area, Number(line.dataset.line));
  });
});
