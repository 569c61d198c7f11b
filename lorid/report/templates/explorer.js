// The disagreement explorer: a filtered list in pages, and one question opened from it.
//
// The address says what is open (#/question/12), so the browser's own back button works.

import { byId, element } from "./dom.js";
import { mathematics } from "./mathematics.js";
import { plain, unpacked } from "./packed.js";
import { answerNodes, questionView, standing, tag } from "./question.js";

const LINES = 15;
const LISTED_CHARS = 220;
const facts = plain("facts");
let entries = [];
let found = [];
let page = 0;

async function start() {
  try {
    entries = await unpacked("index");
  } catch (error) {
    byId("broken").textContent = `The questions cannot be unpacked here: ${error.message}. A browser from 2024 or later can.`;
    return;
  }
  byId("broken").hidden = true;
  byId("explorer-body").hidden = false;
  byId("filters").addEventListener("input", filter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("back").addEventListener("click", () => go(null));
  byId("previous-question").addEventListener("click", () => step(-1));
  byId("next-question").addEventListener("click", () => step(1));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && opened() !== null) go(null);
  });
  window.addEventListener("hashchange", route);
  filter();
  await route();
}

const chosen = () => Number(new FormData(byId("filters")).get("bucket"));

function filter() {
  const bucket = chosen();
  const words = byId("find").value.trim().toLowerCase();
  found = [...entries.keys()].filter((index) => (bucket < 0 || entries[index].buckets.includes(bucket)) && holds(entries[index], words));
  page = 0;
  list();
}

function holds({ id, question, answer, gold }, words) {
  return !words || [id, question, answer ?? "", gold ?? ""].some((text) => text.toLowerCase().includes(words));
}

function turn(by) {
  page += by;
  list();
  byId("found").scrollIntoView({ block: "nearest" });
}

function list() {
  const last = Math.max(0, Math.ceil(found.length / LINES) - 1);
  byId("found").textContent = `${found.length} of ${entries.length} questions`;
  byId("page").textContent = `page ${page + 1} of ${last + 1}`;
  byId("previous").disabled = page === 0;
  byId("next").disabled = page === last;
  byId("questions").replaceChildren(...found.slice(page * LINES, (page + 1) * LINES).map(line));
}

function line(index) {
  const entry = entries[index];
  const { question, gold, correct, outcome, rounds } = entry;
  const short = question.length > LISTED_CHARS ? `${question.slice(0, LISTED_CHARS)} ...` : question;
  const sign = { true: tag("right", "correct"), false: tag("not right", "incorrect"), null: tag("no label") }[correct];
  return element("li", {},
    element("a", { href: `#/question/${index}` },
      element("span", { className: "asked" }, ...mathematics(short)),
      element("span", { className: "outcome" },
        element("b", { className: `said ${standing(entry)}` }, ...answerNodes(entry.answer)),
        ...(gold === null ? [] : [" label ", ...answerNodes(gold)]), " ", sign,
        ` ${outcome.replace("_", " ")}, ${rounds} round${rounds === 1 ? "" : "s"}`)));
}

function opened() {
  const match = /^#\/question\/(\d+)$/.exec(location.hash);
  const index = match ? Number(match[1]) : null;
  return index !== null && index < entries.length ? index : null;
}

function go(index) {
  location.hash = index === null ? "#/questions" : `#/question/${index}`;
}

function step(by) {
  const next = found[found.indexOf(opened()) + by];
  if (next !== undefined) go(next);
}

async function route() {
  const index = opened();
  const wasOpen = !byId("opened").hidden;
  byId("list").hidden = index !== null;
  byId("opened").hidden = index === null;
  if (index === null) {
    if (wasOpen) byId("found").focus();
    return;
  }
  const details = await unpacked(`page-${Math.floor(index / facts.page)}`);
  if (opened() !== index) return;
  byId("question").replaceChildren(...questionView(entries[index], details[index % facts.page], facts));
  byId("previous-question").disabled = found.indexOf(index) <= 0;
  byId("next-question").disabled = found.indexOf(index) === found.length - 1 || !found.includes(index);
  byId("question-title").focus();
  byId("opened").scrollIntoView();
}

start();
