// Numbers and sentences of the page.

const EXACT = 1e-6; // sums of shares have errors of this size

/** Write a share in percent. Only 0 and 1 become 0% and 100%: other shares are not rounded to them. */
export function percent(share, digits = 0) {
  if (Math.abs(share - 1) < EXACT) return "100%";
  const value = 100 * share;
  if (share > 0 && value < 0.05) return "<0.1%";
  if (value >= 99.95) return ">99.9%";
  const nearEnd = (value > 0 && value < 0.995) || value >= 99.5;
  return `${value.toFixed(nearEnd ? Math.max(1, digits) : digits)}%`;
}

/** Write a confidence in percent. It is known to about half a percent, and a network is never certain. */
export function certainty(confidence) {
  return confidence >= 0.995 ? ">99%" : confidence < 0.005 ? "<1%" : percent(confidence);
}

/** Write a number with its sign and about two digits. */
export function signed(value) {
  const size = Math.abs(value), text = size >= 100 ? size.toFixed(0) : Number(size.toPrecision(2)).toString();
  return value < 0 ? `\u2212${text}` : text;
}

/** Write a ratio with one decimal, or none from 10 on. */
export function ratioText(ratio) {
  return ratio > 0 && ratio < 0.05 ? "<0.1" : ratio.toFixed(ratio < 9.95 ? 1 : 0);
}

/** Say how much of a pixel's attention is on its own class, and how that compares with the size of the class. */
export function ownShareSentence(name, own, covered) {
  const ratio = covered > 0 ? own / covered : 0;
  const chance = !ratio ? "" : ratio > 1.05 ? `, so it gets ${ratioText(ratio)} times what even attention would give it`
    : ratio < 0.95 ? `, so it gets less than even attention would give it (${ratioText(ratio)} times)`
    : ", so it gets what even attention would give it";
  return `${percent(own)} of this pixel's attention is on ${name}; ${name} covers ${percent(covered)} of the image${chance}.`;
}

/** Say what the shares of attention mean, by the example of the largest. */
export function sharesSentence({ name, share }) {
  return `This pixel collects features from the whole image: ${percent(share)} of them from where the network sees ${name}. ` +
    "All shares add up to 100%. Marks: the share of the image that a class covers; on the scale, the average place.";
}

const MODULES = {
  position: { name: "alpha", what: "What a pixel collects", input: "its own features" },
  channel: { name: "beta", what: "What a channel collects from the other channels", input: "its own values" },
};

/** Say what the scale of a module does: its sign, and the size of what it adds to its input over the image. */
export function scaleSentence(module, { scale, size, varying }) {
  const { name, what, input } = MODULES[module], start = `${what} is multiplied by ${name} = ${signed(scale)}`;
  if (scale === 0) return `${start}: this attention has no effect.`;
  const sign = scale > 0 ? ` and added to ${input}` : `, which is negative: it is subtracted from ${input}`;
  const amount = size < 0.02 ? "very little" : size < 0.1 ? "a little" : size < 0.5 ? "clearly" : "a lot";
  const constant = varying ** 2 < 0.5 * size ** 2 ? ", mostly in the same way all over the image" : "";
  return `${start}${sign}. This changes them ${amount}, by ${percent(size)} of their size${constant}.`;
}
