// The endpoint's routes as functions; every failure is an EndpointError with one line to show.
//
//   for await (const { event, data } of solveStream({ question }, signal)) ...
//   for await (const line of gradeStream({ items }, signal)) ...

const TOKEN = "lorid-token";

export class EndpointError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export async function getJson(path, signal) {
  return (await send(path, { signal })).json();
}

export async function* solveStream(body, signal) {
  const response = await post("v1/solve", { ...body, stream: true }, "text/event-stream", signal);
  let event = "message";
  for await (const line of lines(response)) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    else if (line.startsWith("data:")) yield { event, data: JSON.parse(line.slice(5)) };
  }
}

export async function* gradeStream(body, signal) {
  const response = await post("v1/grade", body, "application/x-ndjson", signal);
  for await (const line of lines(response)) if (line) yield JSON.parse(line);
}

function post(path, body, accept, signal) {
  const headers = { "Content-Type": "application/json", Accept: accept };
  return send(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function send(path, request) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...request.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...request, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new EndpointError("the endpoint does not answer; is it still running?", 0);
  }
  if (response.ok) return response;
  throw new EndpointError(await reason(response), response.status);
}

async function reason(response) {
  let message = response.statusText || `status ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // A proxy's own page, or nothing: the status says what there is to say.
  }
  const wait = response.headers.get("Retry-After");
  return wait ? `${message} (try again in ${wait} s)` : message;
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const found = (rest + value).split(/\r?\n/);
    rest = found.pop();
    yield* found;
  }
  if (rest) yield rest;
}
