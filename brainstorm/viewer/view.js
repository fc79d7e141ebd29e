"use strict";
// The page: the graph, the search, and the details of a layer.

let snapshot = JSON.parse(document.getElementById("data").textContent);
// What somebody has chosen: it stays when newer data come.
const state = { layer: null, unit: 0, forms: new Map(), hidden: new Map() };
const byId = (id) => document.getElementById(id);
const details = byId("details");

const SECTIONS = [
  ["Parameters", (b) => b.category === "parameters"],
  ["Outputs", (b) => b.category === "outputs"],
  ["Internals", (b) => b.category === "internals" && !b.backward,
    "What the layer computes on its way: gates, states, sums."],
  ["Inputs", (b) => b.category === "inputs"],
  ["Deltas", (b) => b.backward && b.category !== "gradients",
    "How the loss changes with each value, from the backward pass."],
  ["Gradients", (b) => b.category === "gradients",
    "How the loss of the example changes with each parameter."],
];

const layerOf = (name) => snapshot.layers.find((l) => l.name === name);
const buffers = () => snapshot.layers.flatMap((l) => l.buffers);

// An input is the memory of what is connected to it.
function contentsOf(buffer) {
  let [found, seen] = [buffer, 0];
  while (found && !found.contents && found.same && seen++ < 9) {
    found = buffers().find((b) => b.path === found.same);
  }
  return found && found.contents;
}

function choose(key, initial) {
  if (!state.hidden.has(key)) state.hidden.set(key, new Set(initial || []));
  return state.hidden.get(key);
}

// -- the graph --------------------------------------------------------------------

function drawGraph() {
  const { graph } = snapshot;
  const arrow = svg("marker", {
    id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9,
    markerUnits: "userSpaceOnUse", orient: "auto-start-reverse",
  }, svg("path", { class: "arrow", d: "M0 0L8 4L0 8z" }));
  const drawing = svg("svg", {
    viewBox: `0 0 ${graph.width} ${graph.height}`, role: "group",
    "aria-label": "The network as a graph",
  }, svg("defs", {}, arrow));
  const room = byId("graph").clientWidth - 26;
  const narrow = matchMedia("(max-width: 820px)").matches;
  const scale = narrow ? Math.min(1, Math.max(room / graph.width, 0.85)) : 1;
  drawing.setAttribute("width", graph.width * scale);
  drawing.setAttribute("height", graph.height * scale);
  const labels = [];
  let nrOfLong = 0;
  for (const edge of graph.edges) {
    const isLong = edge.label && edge.points.length > 2 && !edge.feedback;
    const [path, x, y] = edge.feedback ? detour(edge, graph)
      : curve(edge.points, isLong ? nrOfLong++ : 0);
    drawing.append(svg("path", {
      class: `edge${edge.feedback ? " feedback" : ""}`, d: path,
      "marker-end": "url(#arrow)", "data-ends": JSON.stringify([edge.start, edge.end]),
    }));
    if (edge.label) {
      const anchor = edge.feedback ? "start" : "middle";
      const text = svg("text", { class: "label", x, y }, edge.label);
      text.style.textAnchor = anchor;
      labels.push(text);
    }
  }
  for (const node of graph.nodes) drawing.append(drawNode(node));
  drawing.append(...labels);
  byId("graph").replaceChildren(drawing);
}

// Labels of long connections side by side go to different ranks, near the start.
function curve(points, nr) {
  let path = `M${points[0].join(" ")}`;
  for (let i = 1; i < points.length; i++) {
    const [[x0, y0], [x1, y1]] = [points[i - 1], points[i]];
    const middle = (y0 + y1) / 2;
    path += x0 === x1 ? `L${x1} ${y1}` : `C${x0} ${middle} ${x1} ${middle} ${x1} ${y1}`;
  }
  const at = points.length > 2 ? 1 + 2 * (nr % ((points.length - 2) / 2)) : 0;
  const [[x0, y0], [x1, y1]] = [points[at], points[at + 1]];
  return [path, (x0 + x1) / 2, (y0 + y1) / 2 + 4];
}

function detour(edge, graph) {
  const [[x0, y0], [x1, y1]] = edge.points;
  const far = Math.max(...graph.nodes.map((n) => n.x + n.width / 2)) + 34;
  const same = edge.start === edge.end ? 12 : 0;
  const path = `M${x0} ${y0 + same}C${far} ${y0 + same} ${far} ${y1 - same} ` +
    `${x1} ${y1 - same}`;
  return [path, far - 4, (y0 + y1) / 2 + 4];
}

function fitted(text, width, letter) {
  const most = Math.max(3, Math.floor((width - 14) / letter));
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function drawNode(node) {
  const second = [node.type === node.name ? "" : node.type, node.sizes]
    .filter(Boolean).join("  ");
  const group = svg("g", {
    class: `node ${node.kind}`, tabindex: 0, role: "button",
    transform: `translate(${node.x} ${node.y})`, "data-layer": node.name,
    "aria-label": `${node.name}, ${node.type}, ${node.sizes || "no outputs"}`,
    onclick: () => select(node.name),
    onkeydown: (event) => onNodeKey(event, node.name),
  },
  svg("title", {}, `${node.name}: ${node.type}, ${node.sizes}`),
  svg("rect", { x: -node.width / 2, y: 0, width: node.width, height: node.height, rx: 8 }),
  svg("text", { class: "name", y: second ? 20 : 28 }, fitted(node.name, node.width, 7.6)),
  second ? svg("text", { class: "sizes", y: 36 }, fitted(second, node.width, 6.4)) : null);
  return group;
}

function onNodeKey(event, name) {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    select(name);
    return;
  }
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const nodes = [...document.querySelectorAll(".node")];
  const at = nodes.findIndex((n) => n.dataset.layer === name) + step;
  if (nodes[at]) nodes[at].focus();
}

function markSelected() {
  for (const node of document.querySelectorAll(".node")) {
    const is = node.dataset.layer === state.layer;
    node.classList.toggle("selected", is);
    node.setAttribute("aria-pressed", String(is));
  }
  for (const edge of document.querySelectorAll(".edge")) {
    const near = JSON.parse(edge.dataset.ends).includes(state.layer);
    edge.classList.toggle("near", near);
  }
}

// -- the search -------------------------------------------------------------------

function find(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const found = snapshot.layers.filter((l) => l.name.toLowerCase().includes(wanted))
    .map((l) => ({ text: l.name, layer: l.name, path: null }));
  for (const layer of snapshot.layers) {
    for (const b of layer.buffers) {
      if (b.path.toLowerCase().includes(wanted)) {
        found.push({ text: b.path, layer: layer.name, path: b.path });
      }
    }
  }
  const rank = (f) => (f.text.toLowerCase() === wanted ? 0 : 1);
  return found.sort((a, b) => rank(a) - rank(b));
}

function showFound() {
  const [box, list] = [byId("search"), byId("found")];
  const found = find(box.value);
  const items = found.slice(0, 60).map((f) => el("li", {}, el("button", {
    type: "button", onclick: () => { list.hidden = true; select(f.layer, f.path); },
  }, f.text)));
  if (found.length > 60) {
    items.push(el("li", { class: "none" }, `and ${count(found.length - 60)} more`));
  }
  if (!found.length) items.push(el("li", { class: "none" }, "Nothing of that name"));
  list.replaceChildren(...items);
  list.hidden = !box.value.trim();
}

function setUpSearch() {
  const [box, list] = [byId("search"), byId("found")];
  box.addEventListener("input", showFound);
  box.addEventListener("focus", showFound);
  box.addEventListener("keydown", (event) => {
    const first = list.querySelector("button");
    if (event.key === "Enter" && first && !list.hidden) first.click();
    if (event.key === "ArrowDown" && first) { event.preventDefault(); first.focus(); }
  });
  list.addEventListener("keydown", (event) => {
    const all = [...list.querySelectorAll("button")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    (all[all.indexOf(document.activeElement) + step] || box).focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") list.hidden = true;
    const typing = ["INPUT", "SELECT"].includes(document.activeElement.tagName);
    if (event.key === "/" && !typing) { event.preventDefault(); box.focus(); }
  });
  document.addEventListener("click", (event) => {
    if (!event.target.closest(".search")) list.hidden = true;
  });
}

// -- details ----------------------------------------------------------------------

function select(name, path) {
  state.layer = name;
  showDetails();
  const card = path && [...details.querySelectorAll("[data-path]")]
    .find((c) => c.dataset.path === path);
  if (card) {
    card.classList.add("found");
    card.scrollIntoView({ block: "center" });
  } else if (matchMedia("(max-width: 820px)").matches) {
    details.scrollIntoView();
  } else {
    scrollTo(0, 0);
  }
  // Who goes through the graph by keyboard stays there.
  const inGraph = document.activeElement.closest(".node");
  if (!inGraph) (card || details).focus({ preventScroll: true });
}

function showDetails() {
  const layer = state.layer === null ? null : layerOf(state.layer);
  details.replaceChildren(...(layer ? layerDetails(layer) : overview()));
  markSelected();
}

const inner = () => details.clientWidth - detailsPadding();
const room = () => Math.max(200, inner() - 32);
const columns = () => Math.max(1, Math.floor((inner() + 12.8) / (17 * 16 + 12.8)));
const cardRoom = (span) => {
  const all = columns();
  const one = (inner() - 12.8 * (all - 1)) / all;
  return Math.floor(one * Math.min(span, all) + 12.8 * (Math.min(span, all) - 1)) - 32;
};
function detailsPadding() {
  const style = getComputedStyle(details);
  return parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
}

function overview() {
  const { example } = snapshot;
  const rows = snapshot.layers.map((l) => el("tr", {},
    el("td", {}, el("button", { type: "button", onclick: () => select(l.name) }, l.name)),
    el("td", {}, l.type),
    el("td", {}, snapshot.graph.nodes.find((n) => n.name === l.name).sizes),
    el("td", { class: "number" }, l.number ? count(l.number) : "")));
  return [
    el("div", { class: "top" }, el("h2", {}, "The network")),
    el("p", { class: "hint" }, "Choose a layer, or type / and part of a name."),
    snapshot.summary.blank
      ? el("p", { class: "bad" }, "All parameters are 0: nobody has initialized them.")
      : null,
    example ? el("p", { class: "chips" }, ...exampleChips(example)) : null,
    ...historyCards(null),
    ...endsOf(example),
    el("h3", {}, "Layers"),
    el("div", { class: "card scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", {}, "Layer"), el("th", {}, "Type"),
        el("th", {}, "Outputs"), el("th", { class: "number" }, "Parameters"))),
      el("tbody", {}, ...rows))),
  ].filter(Boolean);
}

// What goes in, and what comes out.
function endsOf(example) {
  const ends = buffers().filter((b) => b.contents &&
    /^Input\.outputs\.|\.outputs\.predictions$/.test(b.path));
  return !example || !ends.length ? [] : [
    el("h3", {}, "What goes in and what comes out"),
    el("div", { class: "cards" }, ends.map(bufferCard)),
  ];
}

function exampleChips(example) {
  const chips = [plural(example.steps, "time step")];
  chips.unshift(example.number === null ? "an example" : `example ${example.number}`);
  if (example.loss !== null) chips.push(`loss ${number(example.loss)}`);
  if (example.remark) chips.push(example.remark);
  return chips.map((text) => el("span", {}, text));
}

function layerDetails(layer) {
  const sections = SECTIONS.map(([title, has, hint], i) =>
    ({ title, hint, id: `section-${i}`, buffers: layer.buffers.filter(has) }))
    .filter((s) => s.buffers.length);
  const jump = (id) => byId(id).scrollIntoView();
  return [
    el("div", { class: "top" }, el("h2", {}, layer.name),
      el("span", { class: "dim" }, layer.type),
      el("button", { type: "button", class: "back", onclick: () => select(null) },
        "Overview")),
    el("p", { class: "chips" },
      layer.number ? el("span", {}, plural(layer.number, "parameter")) : null,
      layer.arguments.map(([name, value]) => el("span", {}, `${name} = ${value}`))),
    el("p", { class: "chips", "aria-label": "Sections" }, sections.map((s) =>
      el("button", { type: "button", class: "chip", onclick: () => jump(s.id) },
        `${s.title} ${s.buffers.length}`))),
    ...unitCard(layer),
    ...historyCards(layer.name),
    ...sections.flatMap((s) => [
      el("h3", { id: s.id }, s.title),
      s.hint ? el("p", { class: "hint" }, s.hint) : null,
      el("div", { class: "cards" }, s.buffers.map(bufferCard)),
    ]),
  ].filter(Boolean);
}

// What a unit of a recurrent layer does, buffer by buffer.
function unitCard(layer) {
  const seen = layer.buffers.map((b) => [b, contentsOf(b)]).filter(([b, c]) =>
    c && c.form === "sequence" && c.data && ["outputs", "internals"].includes(b.category));
  if (!seen.length) return [];
  const shape = (seen.find(([b]) => b.category === "outputs") || seen[0])[1];
  const alike = seen.filter(([, c]) => String(c.shape) === String(shape.shape));
  const [steps, units] = shape.kept;
  if (alike.length < 2 || steps < 2) return [];
  state.unit = Math.min(state.unit, units - 1);
  const name = (b) => b.path.split(".").slice(1).join(".");
  const forward = alike.filter(([b]) => !b.backward);
  const first = (forward.length > 1 ? forward : alike)
    .filter(([b]) => !/\.[A-Z]a$/.test(b.path) || b.path.endsWith(".Ca")).slice(0, 8);
  const hidden = choose(`unit ${layer.name}`,
    alike.filter((pair) => !first.includes(pair)).map(([b]) => name(b)));
  const readout = el("p", { class: "readout" }, "Point at a curve for its values.");
  const label = room() > 500 ? 150 : 116;
  const rows = el("div", { class: "courses" });
  rows.style.gridTemplateColumns = `${label}px minmax(0, 1fr)`;
  const draw = () => rows.replaceChildren(...alike.filter(([b]) => !hidden.has(name(b)))
    .flatMap(([b, c]) => {
      const y = Array.from({ length: steps }, (_, t) => unpack(c)[t * units + state.unit]);
      const course = curves([{ name: name(b), y }], [{ name: name(b), y }],
        y.map((_, t) => t * shape.steps[0]),
        { width: room() - label - 13, height: 58, xName: "step", label: b.path,
          small: true, colour: b.category === "outputs" ? 0 : b.backward ? 1 : 2 },
        readout);
      return [el("code", {}, name(b)), course];
    }));
  draw();
  const legend = el("div", { class: "legend" }, alike.map(([b]) =>
    toggle(name(b), hidden, draw)));
  return [
    el("h3", {}, "One unit over time"),
    el("div", { class: "card wide", id: "courses" },
      el("label", { class: "choice" }, "Unit ", unitInput(units, shape.steps[1], draw)),
      rows, readout, legend),
  ];
}

function unitInput(units, step, draw) {
  return el("input", {
    type: "number", min: 0, max: (units - 1) * step, step, value: state.unit * step,
    "aria-label": "Unit",
    oninput: (event) => {
      const chosen = Math.round(Number(event.target.value) / step);
      state.unit = Math.min(Math.max(chosen || 0, 0), units - 1);
      draw();
    },
  });
}

// -- training ---------------------------------------------------------------------

function historyCards(layer) {
  const { history } = snapshot;
  if (!history || !history.updates.length) return [];
  const x = history.updates;
  const at = layer === null ? null : history.layers.indexOf(layer);
  if (at === -1) return [];
  const names = layer === null ? history.layers : [layer];
  const rows = (table) => names.map((n) => ({
    name: n, y: table.map((row) => row[history.layers.indexOf(n)]),
  }));
  const chart = (title, hint, series, log) => el("div", { class: "card wide" },
    el("h4", {}, title), el("p", { class: "hint" }, hint),
    ...lineChart(series, x, {
      width: room(), xName: "update", label: title, log, hidden: choose(title + layer),
    }).filter(Boolean));
  const loss = layer === null && history.losses.some((v) => v !== null)
    ? chart("Loss", "of the batch of each sample", [{ name: "loss", y: history.losses }])
    : null;
  return [
    el("h3", {}, "Over updates"),
    el("div", { class: "cards", id: "history" }, loss,
      chart("Gradient norms", "Euclidean norm of the gradients of a layer",
        rows(history.gradient_norms), true),
      chart("Changes relative to parameters",
        "Change of the parameters since the sample before, divided by the number of " +
        "updates and by the norm of the parameters", rows(history.changes), true),
      chart("Parameter norms", "Euclidean norm of the parameters of a layer",
        rows(history.norms), true)),
  ];
}

// -- live -------------------------------------------------------------------------

let newest = 0;
const controls = () => [...document.querySelectorAll("button, input, .node")];

async function poll() {
  const badge = byId("live");
  try {
    const answer = await fetch(`data.json?seen=${newest}`, { cache: "no-store" });
    if (answer.status === 200) {
      snapshot = await answer.json();
      newest = Number(answer.headers.get("X-Number"));
      const [top, focused] = [scrollY, controls().indexOf(document.activeElement)];
      drawGraph();
      showHeader();
      showDetails();
      scrollTo(0, top);
      if (controls()[focused]) controls()[focused].focus({ preventScroll: true });
    }
    badge.textContent = `● live, ${lastUpdate()}`;
    setTimeout(poll, 1000);
  } catch {
    badge.textContent = `ended, ${lastUpdate()}`;
  }
}

function lastUpdate() {
  const updates = (snapshot.history && snapshot.history.updates) || [];
  return updates.length ? `update ${count(updates[updates.length - 1])}` : "before training";
}

function showHeader() {
  const { summary } = snapshot;
  byId("title").textContent = snapshot.title;
  byId("summary").textContent = [
    plural(summary.layers, "layer"), plural(summary.parameters, "parameter"),
    summary.dtype, summary.handler, `brainstorm ${snapshot.version}`].join(" · ");
}

showHeader();
drawGraph();
setUpSearch();
showDetails();
if (document.body.dataset.live === "true") {
  byId("live").hidden = false;
  poll();
}
let [width, waiting] = [details.clientWidth, 0];
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    if (details.clientWidth === width) return;
    width = details.clientWidth;
    drawGraph();
    showDetails();
  }, 150);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showDetails);
