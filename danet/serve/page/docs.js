// The REST interface, listed from /openapi.json.

import { request } from "./api.js";

function make(tag, ...content) {
  const element = document.createElement(tag);
  element.append(...content);
  return element;
}

/** A docstring: lines joined, `code` in its own element. */
function text(description) {
  const parts = description.replace(/([^\n])\n(?!\n)/g, "$1 ").split("`");
  return make("p", ...parts.map((part, i) => (i % 2 ? make("code", part) : part)));
}

function section(path, method, operation) {
  const found = make("section", make("h2", make("b", method.toUpperCase()), path), text(operation.description ?? ""));
  const body = operation.requestBody ? [{ name: "body", description: operation.requestBody.description }] : [];
  const entries = [...body, ...(operation.parameters ?? [])];
  if (entries.length) {
    found.append(make("dl", ...entries.flatMap((entry) => [make("dt", entry.name), make("dd", describe(entry))])));
  }
  return found;
}

function describe({ description, schema = {}, required, in: place }) {
  if (description) return description;
  const kinds = (schema.anyOf ?? [schema]).filter((kind) => kind.type !== "null");
  const values = kinds.map((kind) => kind.enum?.join(" | ") ?? kind.type).join(", ");
  const range = kinds[0].maximum ? `, ${kinds[0].minimum} to ${kinds[0].maximum}` : "";
  const given = schema.default === undefined ? "" : `, ${schema.default} if not given`;
  return `${values}${range}${given}${required && place !== "path" ? ", needed" : ""}`;
}

for (const place of document.querySelectorAll(".here")) place.textContent = location.origin;
try {
  const { paths } = await (await request("/openapi.json")).json();
  document.getElementById("operations").append(
    ...Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => section(path, method, operation))),
  );
} catch (error) {
  const place = document.getElementById("error");
  place.hidden = false;
  place.textContent = error.message;
}
