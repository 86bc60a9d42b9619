// Shows the picture of graph.py's page in full size, from what it is of, or fitted to the window again.
"use strict";
const figure = document.querySelector("figure"), svg = figure.querySelector("svg"), button = document.querySelector("button");
const first = document.getElementById(figure.dataset.first);
const center = (side, size) => first.getBoundingClientRect()[side] + first.getBoundingClientRect()[size] / 2
  - figure.getBoundingClientRect()[side] - figure.getBoundingClientRect()[size] / 2;

function offer() {
  button.hidden = !figure.classList.contains("full") && svg.width.baseVal.value <= figure.clientWidth;
}

button.addEventListener("click", () => {
  const full = figure.classList.toggle("full");
  button.textContent = full ? "Fit" : "100 %";
  if (full) figure.scrollBy(center("left", "width"), center("top", "height"));
  offer();
});
addEventListener("resize", offer);
offer();
