// A batch: results arrive as they finish, in a table by pages; stopped or broken, the rest can follow.

import { byId, element, showError } from "./dom.js";
import { gradeStream } from "./endpoint.js";
import { feedbackOf } from "./feedback.js";
import { mathematics } from "./mathematics.js";
import { readItems } from "./rows.js";

const PER_PAGE = 50;
const PER_REQUEST = 200;
const MAX_FILE_BYTES = 64 * 1024 ** 2;
const state = { items: [], problems: [], results: new Map(), running: null, page: 0 };

export function startGrading({ show }) {
  byId("grade-form").addEventListener("submit", (event) => {
    event.preventDefault();
    begin(byId("items").value);
  });
  byId("file").addEventListener("change", (event) => readFile(event.target.files[0]));
  byId("grade-stop").addEventListener("click", () => state.running?.abort());
  byId("retry").addEventListener("click", gradeRest);
  byId("filter").addEventListener("change", () => turnTo(0));
  byId("previous").addEventListener("click", () => turnTo(state.page - 1));
  byId("next").addEventListener("click", () => turnTo(state.page + 1));
  byId("download").addEventListener("click", download);
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (!event.dataTransfer.files.length) return;
    show();
    byId("chosen").textContent = event.dataTransfer.files[0].name;
    readFile(event.dataTransfer.files[0]);
  });
}

async function readFile(file) {
  if (!file) return;
  if (file.size > MAX_FILE_BYTES) {
    showError(`${file.name} is larger than 64 MiB; \`lorid grade\` takes files of any size`);
    return;
  }
  begin(await file.text());
}

function begin(text) {
  state.running?.abort();
  const { items, problems } = readItems(text);
  if (!items.length) {
    showError(problems[0] ?? "there is nothing to grade: one JSON object a line");
    return;
  }
  Object.assign(state, { items, problems, results: new Map(), page: 0 });
  byId("batch").hidden = false;
  gradeRest();
}

async function gradeRest() {
  const mine = (state.running = new AbortController());
  const isMine = () => state.running === mine;
  showError("");
  setBusy(true);
  const rest = state.items.filter(({ id }) => !isGraded(state.results.get(id)));
  try {
    for (let start = 0; start < rest.length; start += PER_REQUEST) {
      const items = rest.slice(start, start + PER_REQUEST);
      for await (const line of gradeStream({ items, ...options() }, mine.signal)) {
        if (!isMine()) return;
        if (line.error && line.id === undefined) throw new Error(line.error.message);
        if (line.id !== undefined) state.results.set(line.id, line);
        refreshSoon();
      }
    }
  } catch (error) {
    if (isMine() && error.name !== "AbortError") showError(error.message);
  } finally {
    if (isMine()) {
      setBusy(false);
      refresh();
    }
  }
}

const options = () => (byId("feedback").checked ? { include_feedback: true } : {});

const isGraded = (result) => result !== undefined && !result.error;

function setBusy(isBusy) {
  byId("grade-start").disabled = isBusy;
  byId("grade-stop").hidden = !isBusy;
  byId("retry").hidden = isBusy || state.items.every(({ id }) => isGraded(state.results.get(id)));
}

let isRefreshDue = false;
function refreshSoon() {
  if (isRefreshDue) return;
  isRefreshDue = true;
  requestAnimationFrame(() => {
    isRefreshDue = false;
    refresh();
  });
}

function refresh() {
  const bar = byId("progress");
  bar.max = state.items.length;
  bar.value = state.results.size;
  byId("summary").textContent = summary();
  turnTo(state.page);
}

function summary() {
  const count = { correct: 0, incorrect: 0, undecided: 0, error: 0 };
  for (const result of state.results.values()) count[verdictOf(result)] += 1;
  const judged = count.correct + count.incorrect;
  const share = judged ? `, ${((100 * count.correct) / judged).toFixed(1)}% of the decided correct` : "";
  const left = state.problems.length ? `; left out: ${state.problems.slice(0, 3).join("; ")}` : "";
  const more = state.problems.length > 3 ? ` and ${state.problems.length - 3} more` : "";
  return (
    `${state.results.size} of ${state.items.length}: ${count.correct} correct, ${count.incorrect} incorrect, ` +
    `${count.undecided} undecided, ${count.error} errors${share}${left}${more}`
  );
}

const verdictOf = (result) => (result.error ? "error" : result.verdict);

function turnTo(page) {
  const wanted = byId("filter").value;
  const shown = state.items.filter(({ id }) => {
    const result = state.results.get(id);
    return result !== undefined && (!wanted || verdictOf(result) === wanted);
  });
  const pages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
  state.page = Math.min(Math.max(page, 0), pages - 1);
  const start = state.page * PER_PAGE;
  byId("results").replaceChildren(...shown.slice(start, start + PER_PAGE).flatMap(rows));
  byId("page").textContent = `${state.page + 1} of ${pages}`;
  byId("previous").disabled = state.page === 0;
  byId("next").disabled = state.page === pages - 1;
}

function rows(item) {
  const result = state.results.get(item.id);
  const note = feedbackOf(item, result);
  const cell = note && element("td", { colSpan: 6 }, note);
  return [row(item, result), ...(cell ? [element("tr", { className: "note" }, cell)] : [])];
}

function row(item, result) {
  const verdict = verdictOf(result);
  return element(
    "tr",
    {},
    element("td", { textContent: item.id }),
    element("td", { className: "question" }, ...mathematics(item.question)),
    element("td", {}, element("span", { className: `tag ${verdict}`, textContent: verdict })),
    element("td", {}, ...mathematics(result.answer ?? "")),
    element("td", { textContent: result.num_rounds ?? "" }),
    element("td", { textContent: result.error || result.reason }),
  );
}

function download() {
  const lines = state.items.filter(({ id }) => state.results.has(id))
    .map(({ id }) => `${JSON.stringify(state.results.get(id))}\n`);
  const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  element("a", { href: url, download: "graded.jsonl" }).click();
  URL.revokeObjectURL(url);
}
