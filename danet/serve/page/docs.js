// List the operations of the REST API from /openapi.json.

import { request, ROOT } from "./api.js";

function make(tag, ...content) {
  const element = document.createElement(tag);
  element.append(...content);
  return element;
}

/** Join the lines of each paragraph, and put text in backticks into code elements. */
function inline(description) {
  const parts = description.replace(/([^\n])\n(?!\n)/g, "$1 ").split("`");
  return parts.map((part, i) => (i % 2 ? make("code", part) : part));
}

function section(path, method, operation) {
  const heading = make("h2", make("b", method.toUpperCase()), path);
  const element = make("section", heading, make("p", ...inline(operation.description ?? "")));
  const body = operation.requestBody ? [{ name: "body", description: operation.requestBody.description }] : [];
  const entries = [...body, ...(operation.parameters ?? [])];
  if (entries.length) {
    element.append(make("dl", ...entries.flatMap((entry) => [make("dt", entry.name), make("dd", ...describe(entry))])));
  }
  return element;
}

/** Describe a parameter: its text, then its type or values, range, default, and whether it is required. */
function describe({ description = "", schema, required }) {
  if (!schema) return inline(description);
  const types = (schema.anyOf ?? [schema]).filter((type) => type.type !== "null");
  const values = types.map((type) => type.enum?.join(", ") ?? type.type).join(", ");
  const range = types[0].maximum ? `, ${types[0].minimum} to ${types[0].maximum}` : "";
  const fallback = schema.default === undefined ? "" : `, default ${schema.default}`;
  return inline(`${description} (${values}${range}${fallback}${required ? ", required" : ""})`);
}

for (const element of document.querySelectorAll(".here")) element.textContent = ROOT.replace(/\/$/, "");
try {
  const { paths } = await (await request("/openapi.json")).json();
  document.getElementById("operations").append(
    ...Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => section(path, method, operation))),
  );
} catch (error) {
  const element = document.getElementById("error");
  element.hidden = false;
  element.textContent = error.message;
}
