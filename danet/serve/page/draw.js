// Draw on canvases.

// Dark violet to pale yellow. Lightness rises evenly, so the map is readable in gray and with color blindness.
const STOPS = [
  [0, 24, 16, 60, 0], [0.25, 84, 34, 122, 110], [0.5, 178, 52, 106, 180], [0.75, 240, 126, 58, 225], [1, 255, 238, 170, 250],
];
const RAMP = new Uint8ClampedArray(4 * 256);
for (let i = 0; i < 256; i++) {
  const at = i / 255, k = Math.min(STOPS.findLastIndex((stop) => stop[0] <= at), STOPS.length - 2);
  const [low, high] = [STOPS[k], STOPS[k + 1]], part = (at - low[0]) / (high[0] - low[0]);
  for (let c = 0; c < 4; c++) RAMP[4 * i + c] = low[c + 1] + part * (high[c + 1] - low[c + 1]);
}

/** Draw values in [0, 1] of the feature grid over an image of width x height, interpolated between cells. */
export function drawHeat(context, values, grid, width, height) {
  const small = new OffscreenCanvas(grid.width, grid.height), pixels = new ImageData(grid.width, grid.height);
  for (let i = 0; i < values.length; i++) {
    const from = 4 * Math.round(255 * Math.min(1, Math.max(0, values[i])));
    for (let c = 0; c < 4; c++) pixels.data[4 * i + c] = RAMP[from + c];
  }
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  const x = context.canvas.width / width, y = context.canvas.height / height;
  context.drawImage(small, 0, 0, grid.width * grid.cell_width * x, grid.height * grid.cell_height * y);
}

const LEAST_TOP = 4; // times the mean weight: what the brightest color stands for, at least
const UNIFORM = 0.1; // of the attention is elsewhere than if it were even
const FLAT = 0.02; // of the largest value: the range of a channel map

/**
 * Return a map of attention weights: `scaled` in [0, 1] for the colors, what 0 and 1 stand for as `low` and `high` in
 * multiples of the mean weight, where the mean is as `mark`, and whether the weights are nearly `uniform`.
 * The square root makes small weights visible. Nearly uniform weights are not stretched to full contrast.
 */
export function attentionMap(weights) {
  const mean = weights.reduce((a, b) => a + b, 0) / weights.length || 1;
  const top = Math.max(weights.reduce((a, b) => Math.max(a, b), 0), LEAST_TOP * mean);
  const elsewhere = weights.reduce((sum, value) => sum + Math.max(0, value - mean), 0) / (mean * weights.length);
  const scaled = weights.map((value) => Math.sqrt(value / top));
  return { scaled, low: 0, high: top / mean, mark: Math.sqrt(mean / top), uniform: elsewhere < UNIFORM };
}

/** Return a map of the values of a channel, linear from the smallest to the largest unless they hardly differ. */
export function channelMap(values) {
  const least = values.reduce((a, b) => Math.min(a, b), Infinity), most = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const smallest = FLAT * Math.max(Math.abs(least), Math.abs(most)), range = Math.max(most - least, smallest) || 1;
  const low = (least + most - range) / 2;
  const scaled = values.map((value) => (value - low) / range);
  return { scaled, low, high: low + range, mark: null, uniform: most - least <= smallest };
}

/** Draw the color scale of the maps, from left to right, over the gray of a dimmed image. */
export function drawRamp(canvas) {
  [canvas.width, canvas.height] = [256, 1];
  const pixels = new ImageData(256, 1), context = canvas.getContext("2d");
  pixels.data.set(RAMP);
  const ramp = new OffscreenCanvas(256, 1);
  ramp.getContext("2d").putImageData(pixels, 0, 0);
  context.fillStyle = "#404040";
  context.fillRect(0, 0, 256, 1);
  context.drawImage(ramp, 0, 0);
}

/** Draw a small, dimmed copy of the image with a heat map over it, and a dot at `point` if given. */
export function drawSmall(canvas, photo, values, grid, point) {
  const scale = Math.min(1, 420 / Math.max(photo.width, photo.height));
  canvas.width = Math.round(photo.width * scale);
  canvas.height = Math.round(photo.height * scale);
  const context = canvas.getContext("2d");
  context.drawImage(photo, 0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "#808080";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "source-over";
  context.fillStyle = "rgb(0 0 0 / 50%)";
  context.fillRect(0, 0, canvas.width, canvas.height);
  drawHeat(context, values, grid, photo.width, photo.height);
  if (point) drawDot(context, (point.x + 0.5) * scale, (point.y + 0.5) * scale, canvas.width / 60 + 2);
}

/** Draw a ring that is visible on any background, with a number in it if given. */
export function drawDot(context, x, y, radius, number) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = number ? "#14161b" : "rgb(255 255 255 / 25%)";
  context.fill();
  context.lineWidth = Math.max(3, radius / 2.5);
  context.strokeStyle = "#14161b";
  context.stroke();
  context.lineWidth /= 2;
  context.strokeStyle = "#fff";
  context.stroke();
  if (!number) return;
  context.fillStyle = "#fff";
  context.font = `600 ${1.25 * radius}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(number, x, y + 1);
}

/** Draw class ids in their colors, with light borders. Pixels for which `visible(i)` is false stay transparent. */
export function drawClasses(context, labels, palette, visible) {
  const { width, height } = context.canvas, pixels = new ImageData(width, height), data = pixels.data;
  for (let i = 0; i < labels.length; i++) {
    if (!visible(i)) continue;
    const color = palette[labels[i]] ?? [0, 0, 0];
    const border = (i % width && labels[i] !== labels[i - 1]) || (i >= width && labels[i] !== labels[i - width]);
    for (let c = 0; c < 3; c++) data[4 * i + c] = border ? 0.4 * color[c] + 153 : color[c];
    data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}
