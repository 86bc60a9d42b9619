// Plays the steps of a lesson: shows one of them, and sets the picture to what is known by then. lesson.py has written
// all text; here it is only chosen. Nothing is loaded, and without this script the page shows all steps at once.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { nodes, steps, unknown } = JSON.parse($("lesson").textContent);
  const items = [...$("steps").children];
  const figure = $("graph");
  const svg = figure.querySelector("svg");
  const boxes = nodes.map((_, i) => $("n" + i));
  const edges = [...svg.querySelectorAll(".edge")];
  const next = new Map(edges.map((edge) => [edge, edge.nextElementSibling])); // before what each edge belongs
  const last = steps.length - 1;
  const turn = 1600; // milliseconds from step to step
  let at = 0; // the number of the step that is shown
  let timer = 0;
  let raised = []; // the edges that lie above the others
  let pointed = -1; // the node that is told about

  // ── One step ─────────────────────────────────────────────────────────────────────────────────────────────────

  function go(k) {
    at = Math.min(Math.max(k, 0), last);
    items.forEach((item, i) => item.classList.toggle("current", i === at));
    paint(at);
    $("position").value = at;
    $("position").setAttribute("aria-valuetext", items[at].querySelector(".phase").textContent);
    $("count").textContent = `${at + 1} of ${last + 1}`;
    $("status").textContent = [...items[at].querySelectorAll("p, h2, code")].map((part) => part.textContent).join(". ");
    $("steps").scrollTop = 0;
    for (const id of ["first", "back"]) $(id).setAttribute("aria-disabled", at === 0); // a disabled one has no focus
    for (const id of ["last", "next"]) $(id).setAttribute("aria-disabled", at === last);
    if (steps[at].node !== null) bringIntoView(boxes[steps[at].node]);
    tell(pointed);
  }

  // What a picture shows after k steps is what these steps changed, one after the other.
  function paint(k) {
    const passed = new Set();
    for (const { phase, edges, changes } of steps.slice(0, k + 1)) {
      for (const [node, what, words] of changes) write(node, what, words);
      if (phase === "Backward") edges.forEach((i) => passed.add(i));
    }
    const current = steps[k];
    boxes.forEach((box, i) => {
      box.classList.toggle("current", i === current.node);
      box.classList.toggle("todo", shown(i, "data") === unknown);
      box.classList.toggle("graded", !["", "grad 0"].includes(shown(i, "grad")));
      box.setAttribute("aria-label", told(i).join(", "));
    });
    for (const edge of edges) {
      const i = Number(edge.id.slice(1));
      edge.classList.toggle("current", current.edges.includes(i));
      edge.classList.toggle("todo", !passed.has(i));
    }
    raise(edges.filter((edge) => edge.classList.contains("current")));
  }

  // What stands later lies above: these edges above all others, until those of the next step do.
  function raise(current) {
    for (const edge of raised.reverse()) next.get(edge).before(edge);
    boxes[0].before(...current);
    raised = current;
  }

  function write(node, what, words) {
    const line = boxes[node].querySelector("." + what);
    if (line) line.textContent = words;
  }

  function shown(node, what) {
    return boxes[node].querySelector("." + what)?.textContent ?? "";
  }

  function bringIntoView(box) {
    const inner = box.getBoundingClientRect();
    const outer = figure.getBoundingClientRect();
    figure.scrollLeft += (inner.left + inner.right - outer.left - outer.right) / 2;
    figure.scrollTop += (inner.top + inner.bottom - outer.top - outer.bottom) / 2;
  }

  // ── Playing ──────────────────────────────────────────────────────────────────────────────────────────────────

  function play() {
    if (at === last) go(0);
    clearInterval(timer);
    timer = setInterval(() => (at < last ? go(at + 1) : pause()), turn / Number($("speed").value));
    $("play").textContent = "Pause";
  }

  function pause() {
    clearInterval(timer);
    timer = 0;
    $("play").textContent = "Play";
  }

  function step(k) {
    pause();
    go(k);
  }

  function faster(by) {
    const speed = $("speed");
    speed.selectedIndex = Math.min(Math.max(speed.selectedIndex + by, 0), speed.length - 1);
    if (timer) play();
  }

  const toggle = () => (timer ? pause() : play());
  $("first").onclick = () => step(0);
  $("back").onclick = () => step(at - 1);
  $("play").onclick = toggle;
  $("next").onclick = () => step(at + 1);
  $("last").onclick = () => step(last);
  $("position").oninput = () => step(Number($("position").value));
  $("speed").onchange = () => faster(0);

  // Keys work wherever the focus is, unless what has it needs them itself.
  const keys = {
    " ": toggle,
    ArrowLeft: () => step(at - 1),
    ArrowRight: () => step(at + 1),
    Home: () => step(0),
    End: () => step(last),
    "+": () => faster(1),
    "-": () => faster(-1),
    Escape: () => tell(-1),
  };
  document.addEventListener("keydown", (event) => {
    const needed = event.key === " " ? "button, summary, select, [role=button]" : "select";
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in keys) || event.target.closest(needed)) return;
    event.preventDefault();
    keys[event.key]();
  });

  // ── Nodes: each can be pointed at, tapped, and reached by Tab ────────────────────────────────────────────────

  function told(i) {
    const numbers = ["data", "grad"].map((what) => shown(i, what)).filter(Boolean);
    const [name, ...rest] = nodes[i].told;
    const made = shown(i, "data") === unknown ? rest.slice(0, 1) : rest; // its numbers are not known yet
    return [name, ...made, ...numbers, nodes[i].kind].filter(Boolean);
  }

  function tell(i) {
    pointed = i;
    const tip = $("tip");
    tip.hidden = i < 0;
    if (i < 0) return;
    tip.replaceChildren(...told(i).map((line) => Object.assign(document.createElement("div"), { textContent: line })));
    const box = boxes[i].getBoundingClientRect();
    const place = innerWidth < 600 ? atAnEdge : beside;
    tip.style.left = Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.max(8, place(box, tip.offsetHeight)) + "px";
  }

  // Where the tip begins: below the node or else above it; or, where nothing else would have room beside it, below the
  // picture or else at that edge of the window which is further away.
  function beside(box, height) {
    return box.bottom + 8 + height < innerHeight ? box.bottom + 8 : box.top - 8 - height;
  }

  function atAnEdge(box, height) {
    const lowest = innerHeight - height - 8;
    const free = figure.getBoundingClientRect().bottom < lowest;
    return free || box.top + box.bottom < innerHeight ? lowest : 8;
  }

  // The step of a node: the one that computes it or, once the backward pass has begun, that passes its gradient on.
  function stepOf(i) {
    const back = ["Backward", "Result"].includes(steps[at].phase);
    const own = steps.flatMap((s, k) => (s.node === i && s.edges.length ? [k] : [])); // the seed looks at no edges
    return own.length ? own[back ? own.length - 1 : 0] : back ? last : 0;
  }

  boxes.forEach((box, i) => {
    box.querySelector("title").remove(); // the browser's own words, in place of which stand ours
    box.setAttribute("tabindex", "0");
    box.setAttribute("role", "button");
    box.addEventListener("pointerenter", () => tell(i));
    box.addEventListener("pointerleave", () => tell(-1));
    box.addEventListener("focus", () => tell(i));
    box.addEventListener("blur", () => tell(-1));
    box.addEventListener("click", () => step(stepOf(i)));
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      step(stepOf(i));
    });
  });
  addEventListener("scroll", () => tell(pointed), true); // of the page, or of the picture in it

  // ── Paper shows the end, and all steps; the picture if its smallest letters, of 8 points, are at least 6 there ──

  const sheet = { width: 700, height: 860 }; // what A4 and Letter have room for below the title
  const size = svg.viewBox.baseVal;
  figure.classList.toggle("large", Math.min(sheet.width / size.width, sheet.height / size.height) < 3 / 4);

  addEventListener("beforeprint", () => {
    pause();
    tell(-1);
    paint(last);
  });
  addEventListener("afterprint", () => paint(at));

  svg.setAttribute("role", "group");
  document.documentElement.classList.add("plays");
  go(0);
})();
