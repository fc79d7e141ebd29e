"use strict";
// The card of a buffer: its name, shape, picture, histogram and statistics.

const FORMS = {
  number: [], filters: ["filters"], matrix: ["matrix"], vector: ["bars"],
  sequence: ["over time"], image: ["channels"],
};
const MOST_TILES = 1024;
const MOST_BARS = 256;

function bufferCard(buffer) {
  const contents = contentsOf(buffer);
  const parts = buffer.path.split(".");
  const last = parts.pop();
  const wide = contents && isLarge(contents) ? 2 : 1;
  const card = el("section", { class: "card", "data-path": buffer.path, tabindex: -1 },
    el("h4", {}, el("span", { class: "dim" }, `${parts.join(".")}.`), last));
  const words = [buffer.structure.join(" × ")];
  if (buffer.remark) words.push(buffer.remark);
  if (buffer.same) words.push(`the memory of ${buffer.same}`);
  card.append(el("p", { class: "shape" }, words.join(" · ")));
  if (!contents) return card;
  card.style.gridColumn = `span ${Math.min(wide, columns())}`;
  if (contents.form === "number" && contents.data) {
    card.append(el("p", { class: "value" }, number(unpack(contents)[0])));
    return card;
  }
  if (contents.data) addPicture(card, buffer, contents, cardRoom(wide));
  if (contents.histogram) card.append(histogram(contents.histogram, cardRoom(1)));
  card.append(statistics(contents));
  return card;
}

// What needs the place of two cards.
function isLarge({ form, kept, likely }) {
  return form === "filters" || (form === "image" && kept[2] > 3) ||
    (form === "matrix" && (likely || kept[1] > 40));
}

function statistics({ stats, steps, shape, data }) {
  const words = [];
  for (const name of ["min", "mean", "max", "std"].filter((n) => n in stats)) {
    const value = el("b", {}, number(stats[name]));
    words.push(el("span", { class: "stat" }, `${name} `, value), " ");
  }
  const box = el("p", { class: "stats" }, ...words);
  if (stats.not_finite) {
    box.append(el("b", { class: "bad" }, `${count(stats.not_finite)} not finite`));
  }
  const thinned = steps.map((s, i) => [s, i]).filter(([s]) => s > 1)
    .map(([s, i]) => `1 of ${s} along axis ${i}`);
  if (!data) thinned.push("not at all, since there are so many");
  if (thinned.length) {
    box.append(el("span", {}, ` The picture shows ${thinned.join(", ")} of the ` +
      `${shape.join(" × ")} values.`));
  }
  return box;
}

// -- the picture, in the form that is chosen --------------------------------------

function formsOf(buffer, contents) {
  const forms = [...FORMS[contents.form]];
  const colours = contents.kept[contents.kept.length - 1] === 3;
  if (["filters", "image"].includes(contents.form) && colours) forms.unshift("colours");
  if (contents.picture) {
    const [height, width] = contents.picture;
    const form = `${height} × ${width} pictures`;
    if (contents.likely) forms.unshift(form);
    else forms.push(form);
  }
  if (contents.form === "vector" && contents.kept[0] > MOST_BARS) {
    forms[forms.indexOf("bars")] = "strip";
  }
  return forms;
}

function addPicture(card, buffer, contents, wide) {
  const forms = formsOf(buffer, contents);
  const key = `${buffer.path} ${forms}`;
  const box = el("div", { class: "picture" });
  const choice = el("div", { class: "choice", role: "group", "aria-label": "Shown as" });
  const show = (form) => {
    state.forms.set(key, form);
    for (const button of choice.children) {
      button.setAttribute("aria-pressed", String(button.textContent === form));
    }
    box.replaceChildren(...picture(form, buffer, contents, wide));
  };
  if (forms.length > 1) {
    choice.append(...forms.map((form) =>
      el("button", { type: "button", onclick: () => show(form) }, form)));
    card.append(choice);
  }
  card.append(box);
  show(state.forms.get(key) || forms[0]);
}

function picture(form, buffer, contents, wide) {
  const values = unpack(contents);
  const isPixels = buffer.path.startsWith("Input.outputs.") || buffer.same &&
    buffer.same.startsWith("Input.outputs.");
  const scale = scaleOf(contents, buffer.category, isPixels);
  const readout = el("p", { class: "readout" });
  if (form === "bars") return [barChart(values, scale, wide, readout), readout];
  if (form === "over time") {
    return overTime(buffer, contents, values, scale, readout, wide);
  }
  const cells = cellsOf(form, contents, wide);
  const canvas = paint(cells.rows, cells.columns, cells.at, values, cells.scale || scale);
  const largest = cells.isGrid ? 12 : 18;
  size(canvas, wide, largest, cells.isGrid || form === "strip" ? null : 420);
  // Of large grids single pixels are to be seen.
  if (cells.isGrid && canvas.width > wide) canvas.style.maxWidth = "none";
  canvas.setAttribute("aria-label", `${buffer.path} as ${form}, ` +
    `from ${number(contents.stats.min)} to ${number(contents.stats.max)}`);
  const limited = cells.left ? `The first ${MOST_TILES} of ${count(cells.left)} pictures. ` : "";
  const axes = cells.isTable ? "Rows are filters, columns channels." : "";
  readout.textContent = limited + axes;
  point(canvas, readout, (r, c) => {
    const told = cells.tell(r, c);
    return told && `${told[0]}: ${[told[1]].flat().map((i) => number(values[i])).join(", ")}`;
  });
  return [el("div", { class: "scroll" }, canvas), readout,
    cells.scale ? null : scaleBar(scale)].filter(Boolean);
}

// The cells of a picture: what `paint` needs, and what to tell of a cell.
function cellsOf(form, contents, wide) {
  const { kept, steps } = contents;
  if (form === "matrix") {
    const [rows, columns] = kept;
    return {
      rows, columns, at: (r, c) => r * columns + c,
      tell: (r, c) => r >= 0 && r < rows && c >= 0 && c < columns &&
        [`row ${r * steps[0]}, column ${c * steps[1]}`, r * columns + c],
    };
  }
  if (form === "strip") {
    const columns = Math.min(kept[0], Math.max(16, Math.floor(wide / 10)));
    const at = (r, c) => (r * columns + c < kept[0] ? r * columns + c : -1);
    return {
      rows: Math.ceil(kept[0] / columns), columns, at,
      tell: (r, c) => at(r, c) >= 0 && [`${at(r, c) * steps[0]}`, at(r, c)],
    };
  }
  return tiledCells(form, contents, wide);
}

function tiledCells(form, contents, wide) {
  const { kept, steps } = contents;
  const asPictures = form.endsWith("pictures");
  // Number of items, each of height x width x channels.
  const [items, height, width, channels] =
    contents.form === "filters" ? kept
      : contents.form === "image" ? [1, ...kept]
        : [kept.length > 1 ? kept[0] : 1, ...contents.picture];
  const colours = form === "colours" || (asPictures && channels === 3);
  const layers = colours ? 1 : channels;
  const n = Math.min(items * layers, MOST_TILES);
  const across = layers > 1 && items > 1 && layers * (width + 1) <= wide
    ? layers : acrossFor(n, height, width, wide);
  const index = (tile, row, column) => {
    const [item, channel] = [Math.floor(tile / layers), tile % layers];
    const start = ((item * height + row) * width + column) * channels;
    return colours ? [start, start + 1, start + 2] : start + channel;
  };
  const grid = tiles(n, height, width, across, index);
  const what = { filters: "filter", image: "", matrix: "row", vector: "" }[contents.form];
  let scale = null;
  if (colours) {
    const { min, max } = contents.stats;
    const most = Math.max(Math.abs(min), Math.abs(max)) || 1;
    const signed = contents.form !== "image" || min < -0.5;
    scale = signed ? { low: -most, high: most } : { low: Math.min(min, 0), high: max || 1 };
    if (contents.form === "image" && min < 0) scale = { low: min, high: max };
  }
  return {
    ...grid, scale, isGrid: n > 1, isTable: items > 1 && layers > 1 && across === layers,
    left: items * layers > n ? items * layers : 0,
    tell: (r, c) => {
      const place = r >= 0 && c >= 0 && grid.place(r, c);
      if (!place) return null;
      const [tile, row, column] = place;
      const words = [];
      if (what) words.push(`${what} ${Math.floor(tile / layers) * steps[0]}`);
      if (layers > 1) words.push(`channel ${tile % layers}`);
      words.push(`pixel ${row}, ${column}`);
      return [words.join(", "), index(...place)];
    },
  };
}

// Units from top to bottom, time from left to right; below it the course of one unit.
function overTime(buffer, contents, values, scale, readout, wide) {
  const [time, units] = contents.kept;
  const canvas = paint(units, time, (r, c) => c * units + r, values, scale);
  canvas.style.width = `${wide}px`;
  canvas.style.height = `${Math.min(260, Math.max(36, units * 12))}px`;
  canvas.setAttribute("aria-label", `${buffer.path} over ${time} time steps, ` +
    `${units} units from top to bottom`);
  const course = el("div", {});
  const unit = { chosen: Math.min(state.unit, units - 1) };
  const draw = () => {
    const y = Array.from({ length: time }, (_, t) => values[t * units + unit.chosen]);
    const x = y.map((_, t) => t * contents.steps[0]);
    course.replaceChildren(...lineChart([{ name: "value", y }],
      x, { width: wide, height: 110, xName: "step", label: buffer.path,
        hint: units > 1 ? `unit ${unit.chosen * contents.steps[1]}` : "" })
      .filter(Boolean));
  };
  draw();
  readout.textContent = units > 1 ? "Click a row for its course." : "";
  point(canvas, readout, (r, c) => r >= 0 && r < units && c >= 0 && c < time &&
    `step ${c * contents.steps[0]}, unit ${r * contents.steps[1]}: ${number(values[c * units + r])}`);
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    unit.chosen = Math.min(units - 1,
      Math.max(0, Math.floor((event.clientY - box.top) / box.height * units)));
    draw();
  });
  return [canvas, readout, scaleBar(scale), course];
}
