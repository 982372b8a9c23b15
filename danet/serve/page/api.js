// Requests to the server. See /docs for the operations.

/** The server's root, which may have a path if a reverse proxy adds one. */
export const ROOT = new URL("../", import.meta.url).href;

let token = sessionStorage.getItem("danet-token");

/** An error response; `message` is text for the user. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Send a request to a path of the server, with the token if there is one. If the server rejects it, ask the user for the token and retry. */
export async function request(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(new URL(`.${path}`, ROOT), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server is not responding. Is danet serve still running?", 0);
  }
  if (response.status === 401) {
    token = await askToken();
    sessionStorage.setItem("danet-token", token);
    return request(path, options);
  }
  if (response.ok) return response;
  const message = await response.json().then((body) => body.error, () => `The server returned status ${response.status}.`);
  throw new ServerError(message, response.status);
}

function askToken() {
  const dialog = document.getElementById("ask"), field = document.getElementById("token");
  if (!dialog) throw new ServerError("This server requires a token. Open the start page first to enter it.", 401);
  return new Promise((resolve) => {
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close();
      resolve(field.value.trim());
    }, { once: true });
    field.value = "";
    dialog.showModal();
  });
}

const HALF = new Float32Array(1 << 16);
for (let bits = 0; bits < 1 << 16; bits++) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
  HALF[bits] = bits >> 15 ? -size : size;
}

/** Decode base64 of little-endian float16 values to a Float32Array. */
export function unpack(text) {
  const bytes = atob(text), values = new Float32Array(bytes.length / 2);
  for (let i = 0; i < values.length; i++) {
    values[i] = HALF[bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8)];
  }
  return values;
}
