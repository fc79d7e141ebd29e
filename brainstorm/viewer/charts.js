"use strict";
// Drawing: pictures of arrays on canvases, histograms and curves as SVG. Texts only
// ever become text nodes, so that no name can be taken for code.

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return node;
}
const el = (name, attributes, ...children) =>
  build(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) =>
  build(document.createElementNS(SVG, name), attributes, children);

function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "not finite";
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}
const count = (value) => value.toLocaleString("en-US");
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

// -- values -----------------------------------------------------------------------

const unpacked = new WeakMap();

function unpack(contents) {
  if (unpacked.has(contents)) return unpacked.get(contents);
  const text = atob(contents.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  let values;
  if (contents.exact) {
    const view = new DataView(bytes.buffer);
    values = new Float32Array(bytes.length / 4);
    for (let i = 0; i < values.length; i++) values[i] = view.getFloat32(4 * i, true);
  } else {
    const span = contents.high - contents.low;
    values = new Float32Array(bytes.length);
    for (let i = 0; i < values.length; i++) {
      values[i] = bytes[i] === 255 ? NaN : contents.low + (bytes[i] / 254) * span;
    }
  }
  unpacked.set(contents, values);
  return values;
}

// -- colours ----------------------------------------------------------------------

const STOPS = {
  diverging: ["#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b"],
  dark: ["#7cc4ff", "#2f6596", "#191d23", "#9a4632", "#ff9d73"],
  viridis: ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"],
  grey: ["#000000", "#ffffff"],
};
const NOT_FINITE = [255, 0, 255];
const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
  "#8c6bb1", "#7f7f7f"];
const LINES_DARK = ["#4ba3e3", "#ff8c42", "#2fd0a0", "#e79ac6", "#f0c04a", "#8fd3ff",
  "#b79be0", "#b0b0b0"];
const lineColour = (i) => (isDark() ? LINES_DARK : LINES)[i % LINES.length];
const channelsOf = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

// Where values have two signs, 0 has the colour of the middle.
function scaleOf(contents, category, grey) {
  const { min = 0, max = 0 } = contents.stats;
  const signed = min < 0 || ["parameters", "gradients"].includes(category) ||
    category.endsWith("deltas");
  const most = Math.max(Math.abs(min), Math.abs(max)) || 1;
  const low = signed ? -most : 0;
  const high = signed ? most : max || 1;
  let kind = signed ? (isDark() ? "dark" : "diverging") : "viridis";
  if (grey && !signed) kind = "grey";
  const stops = STOPS[kind].map(channelsOf);
  const table = Array.from({ length: 256 }, (_, level) => {
    const at = level / 255 * (stops.length - 1);
    const i = Math.min(Math.floor(at), stops.length - 2);
    return stops[i].map((s, k) => Math.round(s + (stops[i + 1][k] - s) * (at - i)));
  });
  const colour = (value) => (Number.isFinite(value)
    ? table[Math.min(Math.max(Math.round((value - low) / (high - low) * 255), 0), 255)]
    : NOT_FINITE);
  return { low, high, signed, colour, stops: STOPS[kind] };
}

function scaleBar(scale) {
  const bar = el("i", { "aria-hidden": "true" });
  bar.style.background = `linear-gradient(to right, ${scale.stops.join(", ")})`;
  return el("div", { class: "scale" }, number(scale.low), bar, number(scale.high));
}

// -- pictures ---------------------------------------------------------------------

// Paint cells; `at(row, column)` gives the index of the value there, or -1, or the
// three channels of a pixel.
function paint(rows, columns, at, values, scale) {
  const canvas = el("canvas", { width: columns, height: rows, role: "img" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const place = at(r, c);
      if (place === -1) continue;
      const rgb = Array.isArray(place)
        ? place.map((i) => 255 * (values[i] - scale.low) / (scale.high - scale.low))
        : scale.colour(values[place]);
      const start = 4 * (r * columns + c);
      for (let k = 0; k < 3; k++) image.data[start + k] = rgb[k];
      image.data[start + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// Whole pixels for each cell, as many as there is room for.
function size(canvas, room, largest, tallest) {
  const { width, height } = canvas;
  const cell = Math.min(largest, room / width, (tallest || Infinity) / height);
  const whole = cell >= 1 ? Math.floor(cell) : cell;
  canvas.style.width = `${width * whole}px`;
  canvas.style.height = `${height * whole}px`;
  return canvas;
}

// Tell what is under the mouse.
function point(canvas, output, tell) {
  const idle = output.textContent;
  canvas.addEventListener("mousemove", (event) => {
    const box = canvas.getBoundingClientRect();
    const c = Math.floor((event.clientX - box.left) / box.width * canvas.width);
    const r = Math.floor((event.clientY - box.top) / box.height * canvas.height);
    output.textContent = tell(r, c) || idle;
  });
  canvas.addEventListener("mouseleave", () => { output.textContent = idle; });
}

// Pictures side by side. `index(tile, row, column)` gives what `paint` takes.
function tiles(n, height, width, across, index) {
  const down = Math.ceil(n / across);
  const place = (r, c) => {
    const tile = Math.floor(r / (height + 1)) * across + Math.floor(c / (width + 1));
    const [row, column] = [r % (height + 1), c % (width + 1)];
    return tile < n && row < height && column < width ? [tile, row, column] : null;
  };
  return {
    rows: down * (height + 1) - 1,
    columns: across * (width + 1) - 1,
    place,
    at: (r, c) => { const p = place(r, c); return p ? index(...p) : -1; },
  };
}

function acrossFor(n, height, width, room) {
  const wanted = Math.ceil(Math.sqrt(n * (height + 1) / (width + 1) * 1.6));
  const most = Math.max(1, Math.floor(room / (width + 1)));
  return Math.max(1, Math.min(n, wanted, most));
}

// -- charts -----------------------------------------------------------------------

function histogram(counted, width) {
  const height = 64;
  const bottom = height - 14;
  const most = Math.max(...counted.counts);
  const step = width / counted.counts.length;
  const bars = counted.counts.map((n, i) => {
    const tall = n ? Math.max(1, n / most * (bottom - 2)) : 0;
    const { low, high, counts } = counted;
    const edge = (k) => number(low + (high - low) * k / counts.length);
    return svg("rect", {
      class: "bar", x: i * step, y: bottom - tall, height: tall,
      width: Math.max(0.5, step - 1),
    }, svg("title", {}, `${edge(i)} to ${edge(i + 1)}: ${count(n)}`));
  });
  const zero = -counted.low / (counted.high - counted.low) * width;
  return svg("svg", {
    class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Histogram from ${number(counted.low)} to ${number(counted.high)}`,
  },
  bars,
  counted.low < 0 && counted.high > 0
    ? svg("line", { class: "zero", x1: zero, x2: zero, y1: 0, y2: bottom }) : null,
  svg("line", { class: "grid", x1: 0, x2: width, y1: bottom + 0.5, y2: bottom + 0.5 }),
  svg("text", { x: 0, y: height - 3 }, number(counted.low)),
  svg("text", { x: width, y: height - 3, "text-anchor": "end" }, number(counted.high)));
}

function barChart(values, scale, width, readout) {
  const height = 96;
  const step = width / values.length;
  const finite = Array.from(values).filter(Number.isFinite);
  const low = Math.min(0, ...finite);
  const high = Math.max(low + 1e-30, 0, ...finite);
  const y = (value) => (high - value) / (high - low) * (height - 4) + 2;
  const bars = Array.from(values, (value, i) => {
    const rgb = scale.colour(value).map(Math.round);
    const top = Number.isFinite(value) ? Math.min(y(0), y(value)) : 0;
    return svg("rect", {
      x: i * step, y: top, width: Math.max(0.5, step - (step > 4 ? 1.5 : 0)),
      height: Math.max(0.75, Number.isFinite(value) ? Math.abs(y(value) - y(0)) : height),
      fill: `rgb(${rgb.join(",")})`, stroke: "var(--edge)", "stroke-width": 0.5,
      onmouseenter: () => { readout.textContent = `${i}: ${number(value)}`; },
    });
  });
  return svg("svg", {
    class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${values.length} values as bars`,
  }, bars, svg("line", { class: "grid", x1: 0, x2: width, y1: y(0), y2: y(0) }));
}

// Curves: `series` is a list of {name, y}, `x` what they are drawn over.
function lineChart(series, x, options) {
  const hidden = options.hidden || new Set();
  const box = el("div", { class: "curves" });
  const legend = el("div", { class: "legend" });
  const readout = el("p", { class: "readout" }, options.hint || "");
  const redraw = () => {
    const shown = series.filter((s) => !hidden.has(s.name));
    box.replaceChildren(curves(series, shown, x, options, readout));
  };
  series.forEach((s, i) => {
    const dash = el("i", { "aria-hidden": "true" });
    dash.style.background = lineColour(i);
    legend.append(toggle(s.name, hidden, redraw, dash));
  });
  redraw();
  return [box, series.length > 1 || options.legend ? legend : null, readout];
}

// A button that shows and hides something.
function toggle(name, hidden, redraw, sign) {
  const button = el("button", {
    type: "button", "aria-pressed": String(!hidden.has(name)),
    onclick: () => {
      if (!hidden.delete(name)) hidden.add(name);
      button.setAttribute("aria-pressed", String(!hidden.has(name)));
      redraw();
    },
  }, sign, name);
  return button;
}

function curves(series, shown, x, options, readout) {
  const { width, log, height = 190 } = options;
  const [left, right, top, bottom] = [52, 8, 6, height - (options.small ? 6 : 20)];
  const usable = (v) => Number.isFinite(v) && (!log || v > 0);
  const toY = (v) => (log ? Math.log10(v) : v);
  let [low, high] = [Infinity, -Infinity];
  for (const s of shown) {
    for (const v of s.y) {
      if (usable(v)) [low, high] = [Math.min(low, toY(v)), Math.max(high, toY(v))];
    }
  }
  if (low > high) [low, high] = [0, 1];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const [first, last] = [x[0], x[x.length - 1]];
  const px = (v) => left + (last === first ? 0.5 : (v - first) / (last - first)) *
    (width - left - right);
  const py = (v) => bottom - (toY(v) - low) / (high - low) * (bottom - top);
  const ticks = (options.small ? [0, 1] : [0, 0.25, 0.5, 0.75, 1]).map((f) => {
    const at = bottom - f * (bottom - top);
    const value = low + f * (high - low);
    return [
      svg("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }),
      svg("text", { x: left - 5, y: at + 4, "text-anchor": "end" },
        number(Number((log ? 10 ** value : value).toPrecision(options.small ? 2 : 3)))),
    ];
  });
  const paths = shown.map((s) => {
    let path = "";
    let pen = "M";
    s.y.forEach((v, i) => {
      if (usable(v)) {
        path += `${pen}${px(x[i]).toFixed(1)} ${py(v).toFixed(1)}`;
        pen = "L";
      } else pen = "M";
    });
    if (path.indexOf("L") < 0) path = path.replace(/M(\S+) (\S+)/g, "M$1 $2h2");
    return svg("path", {
      d: path, fill: "none", "stroke-width": 1.8,
      stroke: lineColour(options.colour ?? series.indexOf(s)),
    });
  });
  const cursor = svg("line", {
    class: "cursor", y1: top, y2: bottom, x1: -9, x2: -9,
  });
  const chart = svg("svg", {
    class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${options.label}: ${shown.map((s) => s.name).join(", ")}`,
  },
  ticks.flat(), paths, cursor,
  options.small ? [] : [
    svg("text", { x: left, y: height - 4 }, number(first)),
    svg("text", { x: width - right, y: height - 4, "text-anchor": "end" },
      `${options.xName} ${number(last)}`),
  ]);
  const idle = readout.textContent;
  chart.addEventListener("mousemove", (event) => {
    const bounds = chart.getBoundingClientRect();
    const at = (event.clientX - bounds.left) * width / bounds.width;
    let best = 0;
    for (let i = 1; i < x.length; i++) {
      if (Math.abs(px(x[i]) - at) < Math.abs(px(x[best]) - at)) best = i;
    }
    cursor.setAttribute("x1", px(x[best]));
    cursor.setAttribute("x2", px(x[best]));
    readout.textContent = `${options.xName} ${number(x[best])} — ` +
      shown.map((s) => `${s.name} ${number(s.y[best])}`).join(", ");
  });
  chart.addEventListener("mouseleave", () => {
    cursor.setAttribute("x1", -9);
    cursor.setAttribute("x2", -9);
    readout.textContent = idle;
  });
  return chart;
}
