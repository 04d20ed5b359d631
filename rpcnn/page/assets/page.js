"use strict";
// Shows what data.js and items/*.js hold. No library, no network.

const $ = (id) => document.getElementById(id);
const make = (tag, options = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), options);
  node.append(...children);
  return node;
};
const percent = (value, digits = 1) => (value === null || value === undefined ? "–" : (100 * value).toFixed(digits));
const file = (number) => String(number).padStart(5, "0");

const { items, models, labels, palette } = RPCNN;
const scored = items.some((item) => item.predictions.some((p) => p.score));
const tags = [...new Set(items.flatMap((item) => item.predictions.flatMap((p) => (p.score ? p.score.tags : []))))];

// --- gallery ---

const best = (item) => Math.max(-1, ...item.predictions[0].people.map((person) => person.score ?? -1));
const orders = {
  "in order": (a, b) => a - b,
  "score, lowest first": (a, b) => best(items[a]) - best(items[b]),
  "people, most first": (a, b) => items[b].predictions[0].people.length - items[a].predictions[0].people.length,
};
if (scored) {
  const iou = (i) => items[i].predictions[0].score?.iou ?? 2;
  orders["IoU, lowest first"] = (a, b) => iou(a) - iou(b);
  orders["IoU, highest first"] = (a, b) => iou(b) - iou(a);
}
if (models.length > 1 && scored) {
  const gain = (i) => (items[i].predictions[1].score?.iou ?? 0) - (items[i].predictions[0].score?.iou ?? 0);
  orders[`where ${models[1]} is worse`] = (a, b) => gain(a) - gain(b);
  orders[`where ${models[1]} is better`] = (a, b) => gain(b) - gain(a);
}

let shown = [];

function hasClass(item, label) {
  return item.predictions.some(
    (p) => (p.score && p.score.classes[label] !== undefined) || p.people.some((person) => (person.parts || []).includes(labels[label])),
  );
}

function fill(select, values) {
  select.replaceChildren(...values.map(([value, text]) => make("option", { value, textContent: text })));
}

function refresh() {
  const wanted = $("filter").value, word = $("search").value.toLowerCase(), label = Number($("with-class").value);
  shown = items
    .map((_, i) => i)
    .filter((i) => items[i].id.toLowerCase().includes(word))
    .filter((i) => !label || hasClass(items[i], label))
    .filter((i) => wanted === "all" || items[i].predictions.some((p) => (wanted === "nobody" ? !p.people.length : p.score && p.score.tags.includes(wanted))))
    .sort(orders[$("sort").value]);
  $("count").textContent = `${shown.length} of ${items.length}`;
  $("grid").replaceChildren(...shown.map(card));
}

function card(i) {
  const item = items[i], first = item.predictions[0];
  const facts = [`${first.people.length} ${first.people.length === 1 ? "person" : "people"}`];
  item.predictions.forEach((p, k) => p.score && facts.push(`IoU ${percent(p.score.iou)}${models.length > 1 ? ` (${models[k]})` : ""}`));
  const text = make("div", {}, make("b", { textContent: item.id }), make("span", { textContent: facts.join(" · ") }));
  for (const tag of first.score ? first.score.tags : []) text.append(make("span", { className: "tag", textContent: tag }));
  const picture = make("img", { src: `thumbnails/${file(i)}.jpg`, loading: "lazy", alt: `${item.id} with its prediction` });
  const button = make("button", { type: "button", className: "card", title: item.id }, picture, text);
  button.dataset.number = i;
  button.addEventListener("click", () => open(i));
  return button;
}

// --- viewer ---

const loaded = new Map(), waiting = new Map();
window.rpcnnItem = (number, content) => {
  loaded.set(number, content);
  waiting.get(number)?.(content);
};

function load(number) {
  if (loaded.has(number)) return Promise.resolve(loaded.get(number));
  return new Promise((resolve, reject) => {
    waiting.set(number, resolve);
    document.head.append(make("script", { src: `items/${file(number)}.js`, onerror: () => reject(new Error(`items/${file(number)}.js is missing`)) }));
  });
}

function image(url) {
  return new Promise((resolve, reject) => {
    const picture = new Image();
    picture.onload = () => resolve(picture);
    picture.onerror = () => reject(new Error("a picture of the page is damaged"));
    picture.src = url;
  });
}

function pixels(picture) {
  const canvas = make("canvas", { width: picture.width, height: picture.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, picture.width, picture.height);
}

const values = (data) => Uint8Array.from({ length: data.width * data.height }, (_, i) => data.data[4 * i]);
const hidden = new Set();
let current = -1, panels = [];

async function open(number) {
  current = number;
  if (!$("viewer").open) $("viewer").showModal();
  $("name").textContent = items[number].id;
  $("hover").textContent = "";
  const content = await load(number);
  if (current !== number) return;
  const photo = pixels(await image(content.photo));
  const maps = async (urls) => ({ labels: values(pixels(await image(urls.labels))), instances: values(pixels(await image(urls.instances))) });
  const truth = content.truth && (await maps(content.truth));
  panels = [{ title: "Input", photo }];
  if (truth) panels.push({ title: "Truth", photo, maps: truth });
  for (const [k, urls] of content.predictions.entries()) {
    const found = await maps(urls), info = items[number].predictions[k];
    const iou = info.score ? `, IoU ${percent(info.score.iou)}` : "";
    panels.push({ title: (models.length > 1 ? models[k] : "Prediction") + iou, photo, maps: found, people: info.people });
    if (truth) panels.push({ title: models.length > 1 ? `Errors of ${models[k]}` : "Errors", photo, maps: found, truth, people: info.people });
  }
  if (current !== number) return;
  $("panels").replaceChildren(...panels.map(figure));
  legend();
  people(number);
  draw();
  $("viewer").scrollTop = 0;
}

function figure(panel) {
  panel.canvas = make("canvas", { width: panel.photo.width, height: panel.photo.height });
  panel.canvas.setAttribute("role", "img");
  panel.canvas.setAttribute("aria-label", panel.title);
  const point = (event) => {
    const box = panel.canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * panel.photo.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * panel.photo.height);
    tell(panel, Math.min(Math.max(x, 0), panel.photo.width - 1), Math.min(Math.max(y, 0), panel.photo.height - 1));
  };
  panel.canvas.addEventListener("pointermove", point);
  panel.canvas.addEventListener("pointerdown", point);
  panel.canvas.addEventListener("pointerleave", () => ($("hover").textContent = ""));
  return make("figure", {}, make("figcaption", { textContent: panel.title }), panel.canvas);
}

function tell(panel, x, y) {
  const at = y * panel.photo.width + x, words = [];
  const describe = (maps) => {
    const label = maps.labels[at], person = maps.instances[at];
    return (label === 255 ? "ignored" : labels[label] ?? label) + (person ? `, person ${person}` : "");
  };
  const source = panel.maps ? panel : panels.find((other) => other.maps && !other.truth);
  if (!source) return;
  words.push(describe(source.maps));
  const score = source.people?.[source.maps.instances[at] - 1]?.score;
  if (score !== undefined && score !== null) words.push(`score ${score.toFixed(2)}`);
  if (panel.truth && panel.truth.labels[at] !== panel.maps.labels[at]) words.push(`truth: ${describe(panel.truth)}`);
  $("hover").textContent = words.join(" · ");
}

function draw() {
  const weight = $("opacity").value / 100, outline = $("outline").checked;
  for (const panel of panels) {
    const { width, height } = panel.photo, context = panel.canvas.getContext("2d");
    const out = new ImageData(new Uint8ClampedArray(panel.photo.data), width, height);
    for (let i = 0; panel.maps && i < width * height; i++) {
      const label = panel.maps.labels[i];
      if (panel.truth) {
        const wanted = panel.truth.labels[i], wrong = wanted !== label && wanted !== 255 && !(hidden.has(label) && hidden.has(wanted));
        const gray = (out.data[4 * i] + out.data[4 * i + 1] + out.data[4 * i + 2]) / 3;
        const color = wrong ? (label === 0 ? [255, 170, 0] : wanted === 0 ? [60, 140, 255] : [230, 40, 60]) : [gray, gray, gray];
        for (let k = 0; k < 3; k++) out.data[4 * i + k] = wrong ? (1 - weight) * gray + weight * color[k] : 0.75 * gray;
        continue;
      }
      const person = panel.maps.instances[i], x = i % width;
      const edge = outline && ((x + 1 < width && panel.maps.instances[i + 1] !== person) || (i + width < width * height && panel.maps.instances[i + width] !== person));
      if (edge) {
        out.data.set([255, 255, 255], 4 * i);
      } else if (label && label !== 255 && !hidden.has(label)) {
        for (let k = 0; k < 3; k++) out.data[4 * i + k] = (1 - weight) * out.data[4 * i + k] + weight * palette[label][k];
      }
    }
    context.putImageData(out, 0, 0);
  }
}

function legend() {
  const present = new Set();
  for (const panel of panels) panel.maps?.labels.forEach((label) => present.add(label));
  const buttons = labels.map((name, label) => {
    if (!label || !present.has(label)) return null;
    const swatch = make("i");
    swatch.style.background = `rgb(${palette[label].join()})`;
    const button = make("button", { type: "button" }, swatch, name);
    button.setAttribute("aria-pressed", String(!hidden.has(label)));
    button.addEventListener("click", () => {
      if (!hidden.delete(label)) hidden.add(label);
      button.setAttribute("aria-pressed", String(!hidden.has(label)));
      draw();
    });
    return button;
  });
  $("legend").replaceChildren(...buttons.filter(Boolean));
  if (panels.some((panel) => panel.truth)) $("legend").append(make("span", { textContent: "Errors: blue too much, orange missed, red another part" }));
}

function people(number) {
  const rows = [];
  for (const [k, prediction] of items[number].predictions.entries())
    prediction.people.forEach((person, i) => {
      const cells = [`${models.length > 1 ? `${models[k]} ` : ""}${i + 1}`, ...["score", "box_score", "iou_score"].map((key) => person[key]?.toFixed(3) ?? "–")];
      if (prediction.score) cells.push(percent(prediction.score.people[i]));
      rows.push(cells);
    });
  const head = ["Person", "Score", "Box score", "mIoU score", ...(scored ? ["IoU with the truth"] : [])];
  $("people").replaceChildren(rows.length ? make("div", { className: "scroll" }, table(head, rows)) : make("p", { textContent: "Nobody was found." }));
}

function step(by) {
  const at = shown.indexOf(current) + by;
  if (at >= 0 && at < shown.length) open(shown[at]);
}

// --- numbers ---

function table(head, rows) {
  const line = (cells, tag) => make("tr", {}, ...cells.map((text) => make(tag, { textContent: text })));
  return make("table", {}, make("thead", {}, line(head, "th")), make("tbody", {}, ...rows.map((row) => line(row, "td"))));
}

const draws = "http://www.w3.org/2000/svg";
function svg(tag, attributes, text) {
  const node = document.createElementNS(draws, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
const colors = ["#0b72b9", "#d55e00", "#009e73", "#cc79a7"];

function chart(title, height, paint) {
  const picture = svg("svg", { viewBox: `0 0 460 ${height}`, role: "img", "aria-label": title });
  paint(picture);
  $("charts").append(make("div", { className: "chart" }, make("h3", { textContent: title }), picture));
}

function axes(picture, [x0, x1], [y0, y1], names) {
  const box = { left: 46, right: 450, top: 8, bottom: 205 };
  const at = (x, y) => [box.left + ((x - x0) / (x1 - x0 || 1)) * (box.right - box.left), box.bottom - ((y - y0) / (y1 - y0 || 1)) * (box.bottom - box.top)];
  for (let k = 0; k <= 4; k++) {
    const y = y0 + (k / 4) * (y1 - y0), [left, high] = at(x0, y);
    picture.append(svg("line", { x1: left, x2: box.right, y1: high, y2: high, stroke: "currentColor", "stroke-opacity": 0.12 }));
    picture.append(svg("text", { x: left - 5, y: high + 4, "text-anchor": "end" }, Number(y.toPrecision(3))));
    const x = x0 + (k / 4) * (x1 - x0);
    picture.append(svg("text", { x: at(x, y0)[0], y: box.bottom + 15, "text-anchor": "middle" }, Number(x.toPrecision(3))));
  }
  picture.append(svg("text", { x: box.right, y: box.bottom + 30, "text-anchor": "end" }, names[0]));
  picture.append(svg("text", { x: box.left, y: box.top - 0, "text-anchor": "start", dx: 4, dy: 6 }, names[1]));
  return at;
}

function numbers() {
  const tables = Object.entries(RPCNN.tables);
  if (tables.length) {
    const titles = [...new Set(tables.flatMap(([, metrics]) => Object.keys(metrics)))];
    const rows = tables.map(([name, metrics]) => [name, ...titles.map((title) => (metrics[title] === null || metrics[title] === undefined ? "–" : metrics[title].toFixed(2)))]);
    $("table").append(make("div", { className: "scroll" }, table(["", ...titles], rows)));
  }
  RPCNN.confusions.forEach((matrix, k) => {
    const name = models.length > 1 ? ` (${models[k]})` : "";
    const sum = (list) => list.reduce((a, b) => a + b, 0);
    const ious = matrix.map((row, c) => {
      const union = sum(row) + sum(matrix.map((other) => other[c])) - row[c];
      return union ? row[c] / union : null;
    });
    chart(`IoU by class${name}`, 20 * labels.length + 10, (picture) =>
      labels.forEach((label, c) => {
        const y = 20 * c + 5;
        picture.append(svg("text", { x: 118, y: y + 12, "text-anchor": "end" }, label));
        picture.append(svg("rect", { x: 125, y, width: 280 * (ious[c] ?? 0), height: 14, rx: 2, fill: `rgb(${c ? palette[c].join() : "128,128,128"})`, stroke: "currentColor", "stroke-opacity": 0.3 }));
        picture.append(svg("text", { x: 130 + 280 * (ious[c] ?? 0), y: y + 12 }, percent(ious[c])));
      }),
    );
    chart(`Which class was taken for which${name}: rows true, columns predicted, share of the true pixels`, 130 + 16 * labels.length, (picture) =>
      matrix.forEach((row, c) => {
        const total = sum(row), size = 320 / labels.length;
        picture.append(svg("text", { x: 118, y: 16 * c + 12, "text-anchor": "end" }, labels[c]));
        const name = svg("text", { x: 0, y: 0, "text-anchor": "end", transform: `translate(${125 + size * (c + 0.7)} ${16 * labels.length + 8}) rotate(-60)` }, labels[c]);
        picture.append(name);
        row.forEach((count, other) => {
          if (!total || !count) return;
          const cell = svg("rect", { x: 125 + size * other, y: 16 * c, width: size - 1, height: 15, fill: c === other ? "#0b72b9" : "#c8452b", "fill-opacity": Math.sqrt(count / total) });
          cell.append(svg("title", {}, `${labels[c]} taken for ${labels[other]}: ${percent(count / total)} %`));
          picture.append(cell);
        });
      }),
    );
  });
  const points = items.flatMap((item) => item.predictions.flatMap((p, k) => (p.score ? p.people.map((person, i) => [person.score, p.score.people[i], k, item.id]) : [])));
  if (points.some(([score]) => score !== undefined))
    chart("Each predicted person: IoU of the mask against the score", 240, (picture) => {
      const at = axes(picture, [0, 1], [0, 1], ["score", "IoU"]);
      for (const [x, y, k, id] of points) {
        const [cx, cy] = at(Math.min(x ?? 0, 1), y), dot = svg("circle", { cx, cy, r: 3, fill: colors[k % 4], "fill-opacity": 0.5 });
        dot.append(svg("title", {}, id));
        picture.append(dot);
      }
    });
  const curve = (key, title) => {
    const line = RPCNN.curves.filter((record) => typeof record[key] === "number" && typeof record.iteration === "number");
    if (line.length < 2) return;
    chart(title, 240, (picture) => {
      const xs = line.map((record) => record.iteration), ys = line.map((record) => record[key]);
      const at = axes(picture, [Math.min(...xs), Math.max(...xs)], [Math.min(0, ...ys), Math.max(...ys)], ["iteration", title]);
      picture.append(svg("polyline", { points: line.map((record) => at(record.iteration, record[key]).join()).join(" "), fill: "none", stroke: colors[0], "stroke-width": 1.5 }));
    });
  };
  curve("loss", "loss");
  curve("learning_rate", "learning rate");
  curve("gradient_norm", "gradient norm");
  curve("miou", "mIoU while training");
  const any = $("table").childElementCount + $("charts").childElementCount;
  $("numbers").hidden = $("to-numbers").hidden = !any;
}

// --- start ---

document.title = $("title").textContent = RPCNN.title;
fill($("sort"), Object.keys(orders).map((name) => [name, name]));
fill($("filter"), [["all", "all pictures"], ...tags.map((tag) => [tag, tag]), ["nobody", "nobody found"]]);
fill($("with-class"), [["0", "any part"], ...labels.slice(1).map((name, i) => [String(i + 1), name])]);
for (const id of ["sort", "filter", "with-class"]) $(id).addEventListener("change", refresh);
$("search").addEventListener("input", refresh);
$("controls").addEventListener("submit", (event) => event.preventDefault());
$("opacity").addEventListener("input", draw);
$("outline").addEventListener("change", draw);
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("close").addEventListener("click", () => $("viewer").close());
document.addEventListener("keydown", (event) => {
  if (!$("viewer").open || event.target.matches?.("input[type=range]")) return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
refresh();
numbers();
