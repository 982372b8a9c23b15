// The server's answers, for page.js. See /docs for the operations.

let token = sessionStorage.getItem("danet-token");

/** An answer of the server that is an error; `message` is in plain words. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Ask, with the token if there is one; askToken() is called, once, where the server wants another. */
export async function request(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Is danet serve still running?", 0);
  }
  if (answer.status === 401) {
    token = await askToken();
    sessionStorage.setItem("danet-token", token);
    return request(path, options);
  }
  if (answer.ok) return answer;
  const told = await answer.json().then((body) => body.error, () => `The server answered ${answer.status}.`);
  throw new ServerError(told, answer.status);
}

function askToken() {
  const dialog = document.getElementById("ask"), field = document.getElementById("token");
  if (!dialog) throw new ServerError("A token is needed: open the start page first.", 401);
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

/** base64 of little-endian float16 -> Float32Array. */
export function unpack(text) {
  const bytes = atob(text), values = new Float32Array(bytes.length / 2);
  for (let i = 0; i < values.length; i++) {
    values[i] = HALF[bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8)];
  }
  return values;
}
