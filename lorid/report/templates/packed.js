// Data that stand in the page as JSON: plain, or gzip in base64 inside a JSON string.
//
//   plain("facts")              await unpacked("index")

import { byId } from "./dom.js";

export const plain = (id) => JSON.parse(byId(id).textContent);

const known = new Map();

export function unpacked(id) {
  if (!known.has(id)) known.set(id, unpack(plain(id)));
  return known.get(id);
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
