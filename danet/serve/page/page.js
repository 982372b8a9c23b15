// The page of danet serve: an image, its classes, and where each of its pixels looks.
// One request for attention at a time, always for the newest place of the pointer.

import { request, unpack } from "./api.js";
import { attentionScale, drawClasses, drawDot, drawHeat, drawSmall, fullScale } from "./draw.js";

const LONGEST = 2048; // pixels; larger images are made smaller before they are sent
const MOST_PINS = 6;

const $ = (id) => document.getElementById(id);
const body = document.body, frame = $("frame"), stage = $("stage");
const layers = { photo: $("photo"), overlay: $("overlay"), heat: $("heat"), marks: $("marks") };

let model; // GET /v1/model
let image = null; // what is on the page, see show()
let point = null; // { x, y } in pixels of the image
let attention = null; // of the last answered point: { x, y, weights, scaled, grid, classes, class }
let pins = [];
let channel = null; // the channel map in the stage: { number, scaled }
let opened = 0; // the number of the newest open() or sending again: what an older one still brings is dropped

// ---- an image comes ------------------------------------------------------------------------------------------

async function open(file) {
  if (!file) return;
  const mine = ++opened;
  setError(null);
  try {
    become("busy");
    const bitmap = await decode(file);
    if (mine !== opened) return;
    const sent = Math.max(bitmap.width, bitmap.height) > LONGEST ? await smaller(bitmap) : file;
    if (mine !== opened) return;
    const photo = sent === file ? bitmap : await createImageBitmap(sent);
    if (mine !== opened) return;
    forget();
    paintPhoto(photo);
    await show(sent, photo, stem(file.name), mine);
    if (mine !== opened) return;
    if (sent !== file) say(`Made smaller for this page: ${photo.width} by ${photo.height} pixels.`);
  } catch (error) {
    if (mine !== opened) return;
    become(image ? "ready" : "empty");
    setError(error.message);
  }
}

/** Without an image nothing that is about one can be used. */
function become(state) {
  body.dataset.state = state;
  for (const part of document.querySelectorAll("aside, .tools, #compare")) part.inert = !image;
}

async function decode(file) {
  if (file.size === 0) throw new Error("This file is empty.");
  try {
    return await createImageBitmap(file);
  } catch {
    throw new Error("This file is not an image that the browser can open. JPEG, PNG and WebP work.");
  }
}

async function smaller(bitmap) {
  const scale = LONGEST / Math.max(bitmap.width, bitmap.height);
  const canvas = new OffscreenCanvas(Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
}

async function show(sent, photo, name, mine) {
  const summary = await (await request("/v1/segment?keep=true", { method: "POST", body: sent })).json();
  if (mine !== opened) return;
  const pixels = await classMap(summary.image, summary.width * summary.height);
  if (mine !== opened) return;
  if (photo.width !== summary.width || photo.height !== summary.height) {
    throw new Error("The browser and the server see this image in different sizes. Save it anew and try again.");
  }
  image = { id: summary.image, sent, photo, name, summary, grid: summary.grid, ...pixels, hidden: new Set() };
  [image.whole, image.sure] = [image.labels, image.confidence]; // with both modules
  become("ready");
  resetModules();
  fillLegend();
  fillChannelClasses();
  paintClasses();
  const found = summary.classes.slice(0, 3).map((entry) => `${entry.name} ${percent(entry.share)}`).join(", ");
  say(`Segmented: ${found}.`);
  stage.setAttribute("aria-label", `Segmented image: ${found}`);
  moveTo(Math.floor(photo.width / 2), Math.floor(photo.height / 2));
}

async function classMap(id, count, without) {
  const query = without ? `?without=${without}` : "";
  const bytes = new Uint8Array(await (await request(`/v1/images/${id}/pixels${query}`)).arrayBuffer());
  return { labels: bytes.subarray(0, count), confidence: bytes.subarray(count) };
}

function forget() {
  image = point = attention = channel = null;
  pins = [];
  become("busy");
  resetModules();
  $("maps").replaceChildren();
  for (const layer of Object.values(layers)) layer.getContext("2d").clearRect(0, 0, layer.width, layer.height);
  paintPins();
}

/** Both modules on, as an image is shown first. */
function resetModules() {
  for (const id of ["use-position", "use-channel"]) $(id).checked = true;
  $("only-changes").checked = false;
  $("only-changes").disabled = true;
  $("change").textContent = "Switch one off to see what it is worth here.";
}

// ---- the stage ------------------------------------------------------------------------------------------------

function paintPhoto(photo) {
  for (const layer of [layers.photo, layers.overlay]) [layer.width, layer.height] = [photo.width, photo.height];
  layers.photo.getContext("2d").drawImage(photo, 0, 0);
  stage.dataset.ratio = photo.width / photo.height;
  fit();
}

/** The stage as large as the frame allows; heat and marks at the screen's own resolution. */
function fit() {
  const ratio = Number(stage.dataset.ratio) || 1.5;
  const width = Math.min(frame.clientWidth, frame.clientHeight * ratio);
  stage.style.width = `${width}px`;
  stage.style.height = `${width / ratio}px`;
  for (const layer of [layers.heat, layers.marks]) {
    layer.width = Math.round(width * devicePixelRatio);
    layer.height = Math.round((width / ratio) * devicePixelRatio);
  }
  paintHeat();
  paintMarks();
}

function paintClasses() {
  const { labels, whole, hidden } = image, only = $("only-changes").checked && labels !== whole;
  drawClasses(layers.overlay.getContext("2d"), labels, model.classes.palette, (i) =>
    !hidden.has(labels[i]) && !(only && labels[i] === whole[i]));
  layers.overlay.style.opacity = $("opacity").value / 100;
}

function paintHeat() {
  const context = layers.heat.getContext("2d");
  context.clearRect(0, 0, layers.heat.width, layers.heat.height);
  const shown = view() === "channels" ? channel : attention;
  if (image && shown) drawHeat(context, shown.scaled, image.grid, image.photo.width, image.photo.height);
}

function paintMarks() {
  const canvas = layers.marks, context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!image) return;
  const scale = canvas.width / image.photo.width;
  const at = ({ x, y }) => [(x + 0.5) * scale, (y + 0.5) * scale];
  pins.forEach((pin, i) => drawDot(context, ...at(pin), 10 * devicePixelRatio, i + 1));
  if (point) drawDot(context, ...at(point), 6 * devicePixelRatio);
}

// ---- the point ------------------------------------------------------------------------------------------------

function moveTo(x, y, told = false) {
  if (!image) return;
  const { width, height } = image.photo;
  point = { x: Math.min(width - 1, Math.max(0, x)), y: Math.min(height - 1, Math.max(0, y)) };
  const at = point.y * width + point.x, id = image.labels[at], confidence = image.confidence[at] / 255;
  const name = model.classes.names[id] ?? "none";
  $("pixel-class").textContent = name;
  $("pixel-confidence").textContent = percent(confidence);
  $("pixel").querySelector(".swatch").style.background = color(id);
  $("pixel-place").textContent = `x ${point.x}, y ${point.y}`;
  placeTip(name, confidence, id);
  paintMarks();
  if (model.attention.position) follow(told);
  else if (told) say(`${name}, ${percent(confidence)}`);
}

function placeTip(name, confidence, id) {
  const tip = $("tip"), scale = stage.clientWidth / image.photo.width;
  tip.querySelector("span").textContent = `${name} ${percent(confidence)}`;
  tip.querySelector(".swatch").style.background = color(id);
  const x = (point.x + 0.5) * scale, y = (point.y + 0.5) * scale;
  const left = Math.max(0, x + 14 + tip.offsetWidth > stage.clientWidth ? x - 14 - tip.offsetWidth : x + 14);
  tip.style.translate = `${left}px ${y > 44 ? y - 40 : y + 18}px`;
}

const asking = { busy: false, again: false, told: false };

/** Ask for the attention of the newest point; while an answer is on its way, remember only that there is a newer one. */
async function follow(told) {
  asking.told ||= told;
  if (asking.busy) {
    asking.again = true;
    return;
  }
  asking.busy = true;
  do {
    asking.again = false;
    const from = image, at = point;
    if (!from || !at || sameCell(at, attention)) break;
    try {
      const found = await attentionOf(from, at);
      if (from !== image) continue;
      attention = found;
      paintHeat();
      paintPixel();
    } catch (error) {
      if (error.status !== 503) await explain(error, from); // busy: the next move asks again
    }
  } while (asking.again);
  asking.busy = false;
  if (asking.told && attention && point) say(spoken(attention));
  asking.told = false;
}

async function attentionOf(from, { x, y }) {
  const answer = await (await request(`/v1/attention?image=${from.id}&x=${x}&y=${y}`, { method: "POST" })).json();
  const weights = unpack(answer.weights);
  return { ...answer, weights, scaled: attentionScale(weights), from };
}

function sameCell(at, other) {
  if (!other || other.from !== image) return false;
  const cell = ({ x, y }) => `${Math.floor(x / image.grid.cell_width)} ${Math.floor(y / image.grid.cell_height)}`;
  return cell(at) === cell(other);
}

function paintPixel() {
  drawSmall($("mini"), image.photo, attention.scaled, attention.grid, attention);
  fillBars($("shares"), attention.classes.slice(0, 5));
}

function spoken(found) {
  const shares = found.classes.slice(0, 3).map((entry) => `${entry.name} ${percent(entry.share)}`).join(", ");
  return `x ${found.x}, y ${found.y}: ${found.class.name}, ${percent(found.class.confidence)}. Looks at ${shares}.`;
}

/** The server has dropped the image: send it once more; anything else is told, unless another image is coming or here. */
async function explain(error, from) {
  if (from !== image || body.dataset.state === "busy") return;
  if (error.status !== 404) return setError(error.message);
  const mine = ++opened;
  try {
    await show(from.sent, from.photo, from.name, mine);
  } catch (second) {
    if (mine === opened) setError(second.message);
  }
}

// ---- pins -----------------------------------------------------------------------------------------------------

async function pin() {
  if (!image || !point || !model.attention.position) return;
  if (pins.length === MOST_PINS) return setError(`${MOST_PINS} points are pinned; take one away first.`, 4000);
  const from = image, at = { ...point };
  try {
    const found = attention && attention.x === at.x && attention.y === at.y ? attention : await attentionOf(from, at);
    if (from !== image) return;
    pins.push(found);
    paintPins();
    say(`Pinned point ${pins.length}. ${spoken(found)}`);
  } catch (error) {
    await explain(error, from);
  }
}

function unpin(index) {
  pins.splice(index, 1);
  paintPins();
  say(`${pins.length} points are pinned.`);
}

function paintPins() {
  $("no-pins").hidden = pins.length > 0;
  $("pins").replaceChildren(...pins.map((found, i) => {
    const item = document.createElement("li"), canvas = document.createElement("canvas");
    drawSmall(canvas, found.from.photo, found.scaled, found.grid, found);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Point ${i + 1}: ${spoken(found)}`);
    const head = make("div", "head", make("span", "number", String(i + 1)), make("b", "", found.class.name));
    const away = make("button", "", "×");
    away.type = "button";
    away.setAttribute("aria-label", `Take point ${i + 1} away`);
    away.addEventListener("click", () => unpin(i));
    head.append(away);
    const bars = make("ul", "bars");
    fillBars(bars, found.classes.slice(0, 3));
    item.append(canvas, head, bars);
    return item;
  }));
  paintMarks();
}

// ---- classes, modules, channels -------------------------------------------------------------------------------

function fillLegend() {
  $("legend").replaceChildren(...image.summary.classes.map((entry) => {
    const box = make("input");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => {
      image.hidden[box.checked ? "delete" : "add"](entry.id);
      paintClasses();
    });
    const swatch = make("i", "swatch");
    swatch.style.background = color(entry.id);
    return make("li", "", make("label", "", box, swatch, make("span", "name", entry.name), make("span", "value", percent(entry.share))));
  }));
}

async function switchModules(event) {
  const position = $("use-position"), channels = $("use-channel");
  if (!position.checked && !channels.checked) (event.target === position ? channels : position).checked = true;
  const off = switchedOff(), from = image;
  try {
    const pixels = off ? await classMap(from.id, from.whole.length, off) : { labels: from.whole, confidence: from.sure };
    if (from !== image || off !== switchedOff()) return;
    Object.assign(from, pixels);
    const changed = from.labels.reduce((sum, id, i) => sum + (id !== from.whole[i]), 0) / from.whole.length;
    $("only-changes").disabled = !off;
    if (!off) $("only-changes").checked = false;
    $("change").textContent = off
      ? `Without ${off} attention, ${percent(changed, 1)} of the pixels get another class.`
      : "Switch one off to see what it is worth here.";
    say($("change").textContent);
    paintClasses();
    if (point) moveTo(point.x, point.y);
  } catch (error) {
    if (from === image && off === switchedOff()) showWhole();
    await explain(error, from);
  }
}

const switchedOff = () => (!$("use-position").checked ? "position" : !$("use-channel").checked ? "channel" : null);

function showWhole() {
  Object.assign(image, { labels: image.whole, confidence: image.sure });
  resetModules();
  paintClasses();
}

function fillChannelClasses() {
  if (!model.attention.channel) return;
  $("channel-class").replaceChildren(...image.summary.classes.map((entry) => new Option(entry.name, entry.id)));
  fillChannels();
}

async function fillChannels() {
  const from = image, id = $("channel-class").value;
  try {
    const answer = await (await request(`/v1/images/${from.id}/channels?class_id=${id}&count=4`)).json();
    if (from !== image || id !== $("channel-class").value) return;
    $("maps-note").textContent = "";
    $("maps").replaceChildren(...answer.channels.map(({ channel: number, map }) => channelButton(number, fullScale(unpack(map)))));
    channel = null;
    if (view() === "channels") $("maps").firstElementChild?.click();
  } catch (error) {
    if (error.status === 404) return explain(error, from);
    if (from !== image) return;
    $("maps").replaceChildren();
    $("maps-note").textContent = error.message;
    channel = null;
    paintHeat();
  }
}

function channelButton(number, scaled) {
  const button = make("button"), canvas = make("canvas");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-label", `Show channel ${number}`);
  drawSmall(canvas, image.photo, scaled, image.grid);
  button.append(canvas, make("span", "", `channel ${number}`));
  button.addEventListener("click", () => {
    channel = { number, scaled };
    for (const other of $("maps").children) other.setAttribute("aria-pressed", String(other === button));
    setView("channels");
  });
  return button;
}

const view = () => document.querySelector("[name=view]:checked").value;

function setView(name) {
  document.querySelector(`[name=view][value=${name}]`).checked = true;
  stage.dataset.view = name;
  $("opacity").disabled = name !== "classes";
  if (name === "channels" && !channel) $("maps").firstElementChild?.click();
  paintHeat();
}

// ---- downloads ------------------------------------------------------------------------------------------------

async function saveOverlay() {
  const canvas = new OffscreenCanvas(image.photo.width, image.photo.height), context = canvas.getContext("2d");
  if (view() === "classes") {
    context.drawImage(image.photo, 0, 0);
    context.globalAlpha = $("opacity").value / 100;
    context.drawImage(layers.overlay, 0, 0);
  } else {
    context.filter = "grayscale(.9) brightness(.5)";
    context.drawImage(image.photo, 0, 0);
    context.filter = "none";
    context.drawImage(layers.heat, 0, 0, canvas.width, canvas.height);
  }
  const name = `${image.name}_${view() === "classes" ? "overlay" : view()}.png`; // of what is drawn: another may come
  save(await canvas.convertToBlob({ type: "image/png" }), name);
}

async function saveLabels() {
  const off = switchedOff(), query = off ? `?without=${off}` : "", from = image;
  try {
    save(await (await request(`/v1/images/${from.id}/labels${query}`)).blob(), `${from.name}_labels.png`);
  } catch (error) {
    await explain(error, from);
  }
}

function saveJson() {
  const { width, height, classes } = image.summary;
  const points = pins.map((found) => ({ x: found.x, y: found.y, class: found.class, looks_at: found.classes }));
  const text = JSON.stringify({ name: image.name, width, height, classes, points }, null, 2);
  save(new Blob([text, "\n"], { type: "application/json" }), `${image.name}.json`);
}

function save(blob, name) {
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ---- small things ---------------------------------------------------------------------------------------------

function make(tag, name = "", ...content) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...content);
  return element;
}

function fillBars(list, entries) {
  list.replaceChildren(...entries.map((entry) => {
    const bar = make("i");
    bar.style.width = `${100 * entry.share}%`;
    bar.style.background = color(entry.id);
    return make("li", "", make("span", "name", entry.name), make("span", "bar", bar), make("span", "value", percent(entry.share)));
  }));
}

const color = (id) => `rgb(${(model.classes.palette[id] ?? [0, 0, 0]).join(" ")})`;
const percent = (share, digits = 0) => (share > 0 && share < 0.005 && !digits ? "< 1 %" : `${(100 * share).toFixed(digits)} %`);
const stem = (name) => (name || "image").replace(/\.[^.]*$/, "") || "image";

function say(text) {
  $("status").textContent = text;
}

let errorTimer;
function setError(text, forMilliseconds) {
  clearTimeout(errorTimer);
  $("error").hidden = !text;
  $("error").textContent = text ?? "";
  if (forMilliseconds) errorTimer = setTimeout(() => setError(null), forMilliseconds);
}

function placeOf(event) {
  const box = stage.getBoundingClientRect(), { width, height } = image.photo;
  return [Math.floor((event.clientX - box.left) / box.width * width), Math.floor((event.clientY - box.top) / box.height * height)];
}

// ---- events ---------------------------------------------------------------------------------------------------

stage.addEventListener("pointermove", (event) => {
  if (!image) return;
  $("tip").classList.add("on");
  moveTo(...placeOf(event));
});
stage.addEventListener("pointerleave", () => $("tip").classList.remove("on"));
stage.addEventListener("focus", () => $("tip").classList.toggle("on", stage.matches(":focus-visible")));
stage.addEventListener("blur", () => $("tip").classList.remove("on"));
stage.addEventListener("click", (event) => {
  if (!image) return;
  moveTo(...placeOf(event));
  if (event.pointerType !== "touch") pin(); // a finger has the button
});
stage.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!image) return;
  if (step) {
    const cell = event.shiftKey || !image.grid ? [1, 1] : [image.grid.cell_width, image.grid.cell_height];
    $("tip").classList.add("on");
    moveTo(Math.round(point.x + step[0] * cell[0]), Math.round(point.y + step[1] * cell[1]), true);
  } else if (event.key === "Enter" || event.key === " ") pin();
  else if (event.key === "Delete" || event.key === "Backspace") pins.length && unpin(pins.length - 1);
  else return;
  event.preventDefault();
});

for (const input of document.querySelectorAll("[name=view]")) input.addEventListener("change", () => setView(input.value));
$("opacity").addEventListener("input", () => (layers.overlay.style.opacity = $("opacity").value / 100));
$("only-changes").addEventListener("change", paintClasses);
$("use-position").addEventListener("change", switchModules);
$("use-channel").addEventListener("change", switchModules);
$("channel-class").addEventListener("change", fillChannels);
$("pin").addEventListener("click", pin);
$("save-overlay").addEventListener("click", saveOverlay);
$("save-labels").addEventListener("click", saveLabels);
$("save-json").addEventListener("click", saveJson);
for (const id of ["choose", "another"]) $(id).addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  open($("file").files[0]);
  $("file").value = "";
});
$("example").addEventListener("click", async () => {
  try {
    open(new File([await (await request("/page/example.jpg")).blob()], "example.jpg", { type: "image/jpeg" }));
  } catch (error) {
    setError(error.message);
  }
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  frame.classList.add("over");
});
document.addEventListener("dragleave", (event) => event.relatedTarget ?? frame.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  frame.classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (file) open(file);
  else setError("Only files can be dropped here: save the image first, or copy and paste it.");
});
document.addEventListener("paste", (event) => {
  const file = event.clipboardData?.files[0];
  if (file) open(file);
});
new ResizeObserver(fit).observe(frame);

// ---- begin ----------------------------------------------------------------------------------------------------

async function begin() {
  stage.dataset.view = "classes";
  become("empty");
  try {
    model = await (await request("/v1/model")).json();
  } catch (error) {
    return setError(error.message);
  }
  const { position, channel: channels } = model.attention;
  const there = { position, channel: channels, module: position && channels };
  for (const element of document.querySelectorAll("[data-needs]")) element.hidden = !there[element.dataset.needs];
  const count = model.classes.names.length;
  $("about").textContent = [model.network.backbone, `${count} classes`, model.dataset && `trained on ${model.dataset}`].filter(Boolean).join(" · ");
  body.dataset.model = "ready";
}

begin();
