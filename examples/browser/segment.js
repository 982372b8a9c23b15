// Segment images in the browser with a graph from `danet export default --to onnx --preprocessing`.

import * as ort from "./ort.wasm.bundle.min.mjs";

const OPACITY = 0.5;
const status = document.querySelector("[role=status]");
const input = document.querySelector("input");

/** The last result: {labels, confidence, height, width}; labels and confidence have one value per pixel. */
export let result = null;

/** Return the RGB bytes of an image file, as stored: without conversion to the screen's color space. */
async function readPixels(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return { rgb, height, width };
}

async function segment(session, { rgb, height, width }) {
  const images = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
  const outputs = await session.run({ images });
  const [labels, confidence] = [outputs.labels.data, outputs.confidence.data];
  for (const tensor of [images, outputs.labels, outputs.confidence]) tensor.dispose();
  return { labels, confidence, height, width };
}

function drawOverlay(canvas, rgb, { labels, height, width }, classes) {
  const overlay = new ImageData(width, height);
  for (let pixel = 0; pixel < labels.length; pixel++) {
    const { color } = classes[labels[pixel]];
    for (let band = 0; band < 3; band++) {
      overlay.data[4 * pixel + band] = (1 - OPACITY) * rgb[3 * pixel + band] + OPACITY * color[band];
    }
    overlay.data[4 * pixel + 3] = 255;
  }
  [canvas.width, canvas.height, canvas.hidden] = [width, height, false];
  canvas.getContext("2d").putImageData(overlay, 0, 0);
}

/** List the classes that have at least 0.05% of the pixels, the largest first. */
function listShares(body, labels, classes) {
  const counts = new Array(classes.length).fill(0);
  for (const label of labels) counts[label]++;
  const all = classes.map((entry, label) => ({ ...entry, count: counts[label] }));
  const found = all.filter(({ count }) => 2000 * count >= labels.length);
  found.sort((a, b) => b.count - a.count);
  body.replaceChildren();
  for (const { name, color, count } of found) {
    const row = body.insertRow();
    const square = document.createElement("span");
    square.className = "color";
    square.style.background = `rgb(${color})`;
    row.insertCell().append(square, name);
    row.insertCell().textContent = `${((100 * count) / labels.length).toFixed(1)}%`;
  }
}

async function load(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} is not beside this page`);
  return response;
}

async function show(session, classes, file) {
  input.disabled = true;
  status.textContent = `Segmenting ${file.name} ...`;
  try {
    const start = performance.now();
    const pixels = await readPixels(file);
    result = await segment(session, pixels);
    drawOverlay(document.querySelector("canvas"), pixels.rgb, result, classes);
    listShares(document.querySelector("tbody"), result.labels, classes);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    status.textContent = `${file.name}: ${pixels.width} x ${pixels.height} pixels in ${seconds} s`;
  } catch (error) {
    status.textContent = `${file.name} was not segmented: ${error.message ?? error}`;
  }
  input.disabled = false;
}

try {
  const classes = await (await load("classes.json")).json();
  const graph = new Uint8Array(await (await load("whole.onnx")).arrayBuffer());
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  input.addEventListener("change", () => show(session, classes, input.files[0]));
  input.disabled = false;
  status.textContent = "Choose an image.";
} catch (error) {
  status.textContent = `The network was not loaded: ${error.message ?? error}`;
}
