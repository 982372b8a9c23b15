// The web page of danet serve: an image, its classes, and where each of its pixels looks.
// There is one attention request at a time, always for the latest position of the pointer.

import { request, unpack } from "./api.js";
import { attentionMap, channelMap, drawClasses, drawDot, drawHeat, drawRamp, drawSmall } from "./draw.js";
import { certainty, ownShareSentence, percent, ratioText, scaleSentence, sharesSentence, signed } from "./words.js";

const MAX_SIDE = 2048; // pixels; larger images are resized before they are sent
const MAX_PINS = 6;
const DATASETS = {
  camvid: "CamVid", cityscapes: "Cityscapes", voc: "PASCAL VOC", context: "PASCAL Context", context59: "PASCAL Context",
  "coco-stuff": "COCO-Stuff", ade20k: "ADE20K", toy: "synthetic scenes", "toy-context": "synthetic scenes", folder: "",
};

const $ = (id) => document.getElementById(id);
const body = document.body, frame = $("frame"), stage = $("stage");
const layers = { photo: $("photo"), overlay: $("overlay"), heat: $("heat"), marks: $("marks") };

let model; // GET /v1/model
let image = null; // the image on the page, see segment()
let point = null; // { x, y } in pixels of the image
let attention = null; // of the last point that has a response: { x, y, map, grid, classes, class }
let pins = [];
let channel = null; // the channel map on the stage: { number, map }
let latest = 0; // number of the latest upload; results of earlier ones are ignored

// ---- open an image -------------------------------------------------------------------------------------------

async function open(file) {
  if (!file) return;
  const upload = ++latest;
  setError(null);
  try {
    setState("busy");
    const bitmap = await decode(file);
    if (upload !== latest) return;
    const sent = Math.max(bitmap.width, bitmap.height) > MAX_SIDE ? await resize(bitmap) : file;
    if (upload !== latest) return;
    const photo = sent === file ? bitmap : await createImageBitmap(sent);
    if (upload !== latest) return;
    clear();
    paintPhoto(photo);
    await segment(sent, photo, stem(file.name), upload);
    if (upload !== latest) return;
    if (sent !== file) announce(`Resized for this page to ${photo.width} by ${photo.height} pixels.`);
  } catch (error) {
    if (upload !== latest) return;
    setState(image ? "ready" : "empty");
    setError(error.message);
  }
}

/** Set the state of the page, and disable the controls that need an image if there is none. */
function setState(state) {
  body.dataset.state = state;
  for (const part of document.querySelectorAll("aside, .tools, #compare, .below")) part.inert = !image;
}

async function decode(file) {
  if (file.size === 0) throw new Error("This file is empty.");
  try {
    return await createImageBitmap(file);
  } catch {
    throw new Error("Your browser cannot open this file as an image. Use JPEG, PNG, WebP or GIF.");
  }
}

async function resize(bitmap) {
  const scale = MAX_SIDE / Math.max(bitmap.width, bitmap.height);
  const canvas = new OffscreenCanvas(Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
}

async function segment(sent, photo, name, upload) {
  const summary = await (await request("/v1/segment?keep=true", { method: "POST", body: sent })).json();
  if (upload !== latest) return;
  const pixels = await classMap(summary.image, summary.width * summary.height);
  if (upload !== latest) return;
  if (photo.width !== summary.width || photo.height !== summary.height) {
    throw new Error("The browser and the server read different sizes from this image. Save it again in an image editor and retry.");
  }
  image = { id: summary.image, sent, photo, name, summary, grid: summary.grid, ...pixels, hidden: new Set() };
  [image.fullLabels, image.fullConfidence] = [image.labels, image.confidence]; // with both modules
  setState("ready");
  resetModules();
  fillLegend();
  fillScales();
  fillChannelClasses();
  paintClasses();
  const largest = summary.classes.slice(0, 3).map((entry) => `${entry.name} ${percent(entry.share)}`).join(", ");
  announce(`Segmented: ${largest}.`);
  stage.setAttribute("aria-label", `Segmented image: ${largest}`);
  moveTo(Math.floor(photo.width / 2), Math.floor(photo.height / 2));
}

async function classMap(id, count, without) {
  const query = without ? `?without=${without}` : "";
  const bytes = new Uint8Array(await (await request(`/v1/images/${id}/pixels${query}`)).arrayBuffer());
  return { labels: bytes.subarray(0, count), confidence: bytes.subarray(count) };
}

function clear() {
  image = point = attention = channel = null;
  pins = [];
  setState("busy");
  resetModules();
  $("maps").replaceChildren();
  for (const layer of Object.values(layers)) layer.getContext("2d").clearRect(0, 0, layer.width, layer.height);
  paintPins();
}

/** Turn both modules on, as for a new image. */
function resetModules() {
  for (const id of ["use-position", "use-channel"]) $(id).checked = true;
  $("only-changes").checked = false;
  $("change").textContent = "Turn one off to see what it contributes.";
  showModules();
}

/** Hide what a disabled module has no more: a module's maps do not depend on the other module. */
function showModules() {
  const off = disabledModule();
  $("only-changes").disabled = !off || view() !== "classes";
  $("look").hidden = off === "position";
  $("no-look").hidden = off !== "position";
  $("maps").hidden = off === "channel";
  $("no-maps").hidden = off !== "channel";
  paintHeat();
}

/** Return the map on the stage, if there is one. */
function shownMap() {
  const off = disabledModule();
  if (view() === "attention") return off === "position" ? null : attention?.map;
  return view() === "channels" && off !== "channel" ? channel?.map : null;
}

function showHint(map) {
  const off = disabledModule(), missing = { attention: "position", channels: "channel" }[view()];
  $("hint").textContent = missing && off === missing ? `No map: ${missing} attention is off`
    : map?.uniform ? (view() === "attention" ? "Nearly uniform: this pixel looks everywhere alike" : "Nearly uniform: this channel hardly varies") : "";
  $("hint").hidden = !$("hint").textContent;
}

// ---- the stage ------------------------------------------------------------------------------------------------

function paintPhoto(photo) {
  for (const layer of [layers.photo, layers.overlay]) [layer.width, layer.height] = [photo.width, photo.height];
  layers.photo.getContext("2d").drawImage(photo, 0, 0);
  stage.dataset.ratio = photo.width / photo.height;
  frame.style.aspectRatio = Math.min(3, Math.max(0.8, stage.dataset.ratio));
  body.style.setProperty("--ratio", Math.min(2.5, Math.max(1.2, stage.dataset.ratio))); // of the small maps
  fit();
}

/** Make the stage as large as the frame allows. Heat map and marks use the resolution of the screen. */
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
  const { labels, fullLabels, hidden } = image;
  const onlyChanges = $("only-changes").checked && labels !== fullLabels;
  drawClasses(layers.overlay.getContext("2d"), labels, model.classes.palette, (i) =>
    !hidden.has(labels[i]) && !(onlyChanges && labels[i] === fullLabels[i]));
  layers.overlay.style.opacity = $("opacity").value / 100;
}

function paintHeat() {
  const context = layers.heat.getContext("2d");
  context.clearRect(0, 0, layers.heat.width, layers.heat.height);
  const map = image && shownMap();
  if (map) drawHeat(context, map.scaled, image.grid, image.photo.width, image.photo.height);
  stage.dataset.map = map ? "on" : "off";
  fillScale($("scale"), map);
  showHint(map);
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

function moveTo(x, y, aloud = false) {
  if (!image) return;
  const { width, height } = image.photo;
  point = { x: Math.min(width - 1, Math.max(0, x)), y: Math.min(height - 1, Math.max(0, y)) };
  const at = point.y * width + point.x, id = image.labels[at], confidence = image.confidence[at] / 255;
  const name = model.classes.names[id] ?? "none";
  $("pixel-class").textContent = name;
  $("pixel-confidence").textContent = certainty(confidence);
  $("pixel").querySelector(".swatch").style.background = color(id);
  $("pixel-place").textContent = `x ${point.x}, y ${point.y}`;
  placeTip(name, confidence, id);
  paintMarks();
  paintOwnShare();
  if (model.attention.position && disabledModule() !== "position") updateAttention(aloud);
  else if (aloud) announce(`${name}, ${certainty(confidence)}`);
}

function placeTip(name, confidence, id) {
  const tip = $("tip"), scale = stage.clientWidth / image.photo.width;
  tip.querySelector("span").textContent = `${name} ${certainty(confidence)}`;
  tip.querySelector(".swatch").style.background = color(id);
  const x = (point.x + 0.5) * scale, y = (point.y + 0.5) * scale;
  const left = Math.max(0, x + 14 + tip.offsetWidth > stage.clientWidth ? x - 14 - tip.offsetWidth : x + 14);
  tip.style.translate = `${left}px ${y > 44 ? y - 40 : y + 18}px`;
}

const pending = { busy: false, again: false, announce: false };

/** Request the attention of the latest point. While a request is running, only remember that there is a later point. */
async function updateAttention(aloud) {
  pending.announce ||= aloud;
  if (pending.busy) {
    pending.again = true;
    return;
  }
  pending.busy = true;
  do {
    pending.again = false;
    const from = image, at = point;
    if (!from || !at || sameCell(at, attention)) break;
    try {
      const result = await attentionOf(from, at);
      if (from !== image) continue;
      attention = result;
      paintHeat();
      paintPixel();
    } catch (error) {
      if (error.status !== 503) await recover(error, from); // if the server is busy, the next move tries again
    }
  } while (pending.again);
  pending.busy = false;
  if (pending.announce && attention && point) announce(describe(attention));
  pending.announce = false;
}

async function attentionOf(from, { x, y }) {
  const response = await (await request(`/v1/attention?image=${from.id}&x=${x}&y=${y}`, { method: "POST" })).json();
  return { ...response, map: attentionMap(unpack(response.weights)), from };
}

function sameCell(at, other) {
  if (!other || other.from !== image) return false;
  const cell = ({ x, y }) => `${Math.floor(x / image.grid.cell_width)} ${Math.floor(y / image.grid.cell_height)}`;
  return cell(at) === cell(other);
}

function paintPixel() {
  drawSmall($("mini"), image.photo, attention.map.scaled, attention.grid, attention);
  fillScale($("mini-scale"), attention.map);
  fillBars($("shares"), attention.classes.slice(0, 5));
  $("meaning").textContent = sharesSentence(attention.classes[0]);
  paintOwnShare();
}

/** Say how much of the point's attention is on its own class, next to how much of the image has this class. */
function paintOwnShare() {
  if (!sameCell(point, attention)) return; // a response is on its way
  const id = image.fullLabels[point.y * image.photo.width + point.x], name = model.classes.names[id];
  const own = attention.classes.find((entry) => entry.id === id)?.share ?? 0;
  const covered = image.summary.classes.find((entry) => entry.id === id)?.share ?? 0;
  const uniform = attention.map.uniform ? "Nearly uniform attention. " : "";
  $("own-share").textContent = uniform + ownShareSentence(name, own, covered);
}

function describe(result) {
  const shares = result.classes.slice(0, 3).map((entry) => `${entry.name} ${percent(entry.share)}`).join(", ");
  return `x ${result.x}, y ${result.y}: ${result.class.name}, ${certainty(result.class.confidence)}. Looks at ${shares}.`;
}

/** Send the image again if the server no longer has it, or show the error. Ignore it if the image is no longer open. */
async function recover(error, from) {
  if (from !== image || body.dataset.state === "busy") return;
  if (error.status !== 404) return setError(error.message);
  const upload = ++latest;
  try {
    await segment(from.sent, from.photo, from.name, upload);
  } catch (second) {
    if (upload === latest) setError(second.message);
  }
}

// ---- pins -----------------------------------------------------------------------------------------------------

async function pin() {
  if (!image || !point || !model.attention.position || disabledModule() === "position") return;
  if (pins.length === MAX_PINS) return setError(`You can pin up to ${MAX_PINS} points. Remove one first.`, 4000);
  const from = image, at = { ...point };
  try {
    const result = attention && attention.x === at.x && attention.y === at.y ? attention : await attentionOf(from, at);
    if (from !== image) return;
    pins.push(result);
    paintPins();
    announce(`Pinned point ${pins.length}. ${describe(result)}`);
  } catch (error) {
    await recover(error, from);
  }
}

function unpin(index) {
  pins.splice(index, 1);
  paintPins();
  announce(pins.length === 1 ? "1 point is pinned." : `${pins.length} points are pinned.`);
}

function paintPins() {
  $("no-pins").hidden = pins.length > 0;
  $("pins").replaceChildren(...pins.map((result, i) => {
    const item = document.createElement("li"), canvas = document.createElement("canvas");
    drawSmall(canvas, result.from.photo, result.map.scaled, result.grid, result);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Point ${i + 1}: ${describe(result)}`);
    const head = make("div", "head", make("span", "number", String(i + 1)), make("b", "", result.class.name));
    const remove = make("button", "", "×");
    remove.type = "button";
    remove.setAttribute("aria-label", `Remove point ${i + 1}`);
    remove.addEventListener("click", () => unpin(i));
    head.append(remove);
    const bars = make("ul", "bars"), scale = make("div", "scale");
    fillScale(scale, result.map);
    fillBars(bars, result.classes.slice(0, 3));
    item.append(canvas, scale, head, bars);
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

/** Say what the modules of this network do with what attention collects. */
function fillScales() {
  const { position, channel: channels } = image.summary.modules ?? {};
  $("alpha").textContent = position ? scaleSentence("position", position) : "";
  $("beta").textContent = channels ? scaleSentence("channel", channels) : "";
}

async function switchModules(event) {
  const position = $("use-position"), channels = $("use-channel");
  if (!position.checked && !channels.checked) (event.target === position ? channels : position).checked = true;
  const off = disabledModule(), from = image;
  try {
    const pixels = off ? await classMap(from.id, from.fullLabels.length, off) : { labels: from.fullLabels, confidence: from.fullConfidence };
    if (from !== image || off !== disabledModule()) return;
    Object.assign(from, pixels);
    const changed = from.labels.reduce((sum, id, i) => sum + (id !== from.fullLabels[i]), 0) / from.fullLabels.length;
    if (!off) $("only-changes").checked = false;
    $("change").textContent = off
      ? `Without ${off} attention, ${percent(changed, 1)} of pixels change class.`
      : "Turn one off to see what it contributes.";
    showModules();
    announce($("change").textContent);
    paintClasses();
    if (point) moveTo(point.x, point.y);
  } catch (error) {
    if (from === image && off === disabledModule()) showFull();
    await recover(error, from);
  }
}

const disabledModule = () => (!$("use-position").checked ? "position" : !$("use-channel").checked ? "channel" : null);

function showFull() {
  Object.assign(image, { labels: image.fullLabels, confidence: image.fullConfidence });
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
    const response = await (await request(`/v1/images/${from.id}/channels?class_id=${id}&count=4`)).json();
    if (from !== image || id !== $("channel-class").value) return;
    $("maps-note").textContent = "";
    $("maps").replaceChildren(...response.channels.map(({ channel: number, map }) => channelButton(number, channelMap(unpack(map)))));
    channel = null;
    if (view() === "channels") $("maps").firstElementChild?.click();
  } catch (error) {
    if (error.status === 404) return recover(error, from);
    if (from !== image) return;
    $("maps").replaceChildren();
    $("maps-note").textContent = error.message.replace(/^class_id: /, "");
    channel = null;
    paintHeat();
  }
}

function channelButton(number, map) {
  const button = make("button"), canvas = make("canvas");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-label", `Show channel ${number + 1}`);
  drawSmall(canvas, image.photo, map.scaled, image.grid);
  const range = map.uniform ? "nearly uniform" : `${signed(map.low)} to ${signed(map.high)}`;
  button.append(canvas, make("span", "", `channel ${number + 1}`), make("small", "", range));
  button.addEventListener("click", () => {
    channel = { number, map };
    for (const other of $("maps").children) other.setAttribute("aria-pressed", String(other === button));
    setView("channels");
  });
  return button;
}

const view = () => document.querySelector("[name=view]:checked").value;

function setView(name) {
  document.querySelector(`[name=view][value=${name}]`).checked = true;
  stage.dataset.view = name;
  $("opacity-field").hidden = name !== "classes";
  showModules();
  if (name === "channels" && !channel) $("maps").firstElementChild?.click();
}

// ---- downloads ------------------------------------------------------------------------------------------------

async function saveOverlay() {
  const canvas = new OffscreenCanvas(image.photo.width, image.photo.height), context = canvas.getContext("2d");
  if (view() === "classes") {
    context.drawImage(image.photo, 0, 0);
    context.globalAlpha = $("opacity").value / 100;
    context.drawImage(layers.overlay, 0, 0);
  } else {
    if (shownMap()) context.filter = "grayscale(.9) brightness(.5)";
    context.drawImage(image.photo, 0, 0);
    context.filter = "none";
    context.drawImage(layers.heat, 0, 0, canvas.width, canvas.height);
  }
  const name = `${image.name}_${view() === "classes" ? "overlay" : view()}.png`; // the image may change while this waits
  save(await canvas.convertToBlob({ type: "image/png" }), name);
}

async function saveLabels() {
  const off = disabledModule(), query = off ? `?without=${off}` : "", from = image;
  try {
    save(await (await request(`/v1/images/${from.id}/labels${query}`)).blob(), `${from.name}_labels.png`);
  } catch (error) {
    await recover(error, from);
  }
}

function saveJson() {
  const { width, height, classes } = image.summary;
  const points = pins.map((pin) => ({ x: pin.x, y: pin.y, class: pin.class, looks_at: pin.classes }));
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

// ---- helpers --------------------------------------------------------------------------------------------------

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
    const mark = make("b");
    mark.style.left = `${100 * entry.image_share}%`;
    return make("li", "", make("span", "name", entry.name), make("span", "bar", bar, mark), make("span", "value", percent(entry.share)));
  }));
}

/** Show the color scale of a map with its values; hide it if there is no map. */
function fillScale(element, map) {
  element.hidden = !map;
  if (!map) return;
  const weights = map.mark !== null, ramp = make("span", "ramp", make("canvas"));
  drawRamp(ramp.firstChild);
  if (weights) {
    const mark = make("b");
    mark.style.left = `${100 * map.mark}%`;
    ramp.append(mark);
  }
  const [low, high] = weights ? ["0", `${ratioText(map.high)}\u00d7 average`] : [signed(map.low), signed(map.high)];
  element.replaceChildren(make("span", "", low), ramp, make("span", "", high));
  element.title = weights ? "Attention per place of the image. The mark is at the average." : "Value of the channel";
}

const color = (id) => `rgb(${(model.classes.palette[id] ?? [0, 0, 0]).join(" ")})`;
const stem = (name) => (name || "image").replace(/\.[^.]*$/, "") || "image";

function announce(text) {
  $("status").textContent = text;
}

let errorTimer;
function setError(text, forMilliseconds) {
  clearTimeout(errorTimer);
  $("error").hidden = !text;
  $("error").querySelector("span").textContent = text ?? "";
  if (forMilliseconds) errorTimer = setTimeout(() => setError(null), forMilliseconds);
}

function pixelAt(event) {
  const box = stage.getBoundingClientRect(), { width, height } = image.photo;
  return [Math.floor((event.clientX - box.left) / box.width * width), Math.floor((event.clientY - box.top) / box.height * height)];
}

// ---- events ---------------------------------------------------------------------------------------------------

stage.addEventListener("pointermove", (event) => {
  if (!image) return;
  $("tip").classList.add("on");
  moveTo(...pixelAt(event));
});
stage.addEventListener("pointerleave", () => $("tip").classList.remove("on"));
stage.addEventListener("focus", () => $("tip").classList.toggle("on", stage.matches(":focus-visible")));
stage.addEventListener("blur", () => $("tip").classList.remove("on"));
stage.addEventListener("click", (event) => {
  if (!image) return;
  moveTo(...pixelAt(event));
  if (event.pointerType !== "touch") pin(); // on touch screens, the button pins
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
$("close-error").addEventListener("click", () => setError(null));
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
  else setError("Drop an image file, or paste an image.");
});
document.addEventListener("paste", (event) => {
  const file = event.clipboardData?.files[0];
  if (file) open(file);
});
new ResizeObserver(fit).observe(frame);

// ---- start ----------------------------------------------------------------------------------------------------

async function start() {
  stage.dataset.view = "classes";
  setState("empty");
  try {
    model = await (await request("/v1/model")).json();
  } catch (error) {
    return setError(error.message);
  }
  const { position, channel: channels } = model.attention;
  const available = { position, channel: channels, module: position || channels };
  for (const element of document.querySelectorAll("[data-needs]")) element.hidden = !available[element.dataset.needs];
  const count = model.classes.names.length;
  const data = DATASETS[model.dataset] ?? model.dataset;
  $("network").textContent = [model.network.backbone, `${count} classes`, data && `trained on ${data}`].filter(Boolean).join(", ");
  fillKnown(data);
  body.dataset.model = "ready";
}

/** List the classes on the start page. */
function fillKnown(data) {
  const { names } = model.classes, trained = data ? ` (trained on ${data})` : "";
  $("knows").querySelector("h2").textContent = `Recognizes ${names.length} classes${trained}`;
  $("knows").querySelector("ul").replaceChildren(...names.map((name, id) => {
    const swatch = make("i", "swatch");
    swatch.style.background = color(id);
    return make("li", "", swatch, name);
  }));
  $("knows").hidden = false;
}

start();
