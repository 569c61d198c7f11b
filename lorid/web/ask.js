// One question: its rounds arrive side by side, intuitive | knowledge -> deep, then the answer.

import { byId, element, showError } from "./dom.js";
import { solveStream } from "./endpoint.js";
import { mathematics } from "./mathematics.js";

const OUTCOMES = {
  agreed: "both sides agree",
  exhausted: "no agreement in the rounds allowed; the most frequent answer",
  no_answer: "no attempt gave an answer",
};
let running = null;

export function startAsking() {
  byId("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  byId("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask-form").requestSubmit();
  });
  byId("stop").addEventListener("click", () => running?.abort());
}

async function ask() {
  running?.abort();
  const mine = (running = new AbortController());
  const isMine = () => running === mine;
  showError("");
  byId("rounds").replaceChildren();
  byId("answer").replaceChildren(waiting("thinking ..."));
  setBusy(true);
  try {
    for await (const { event, data } of solveStream(request(), mine.signal)) {
      if (!isMine()) return;
      show(event, data);
    }
    if (byId("answer").querySelector(".waiting")) throw new Error("the connection ended before the answer");
  } catch (error) {
    if (!isMine()) return;
    byId("answer").replaceChildren(...(error.name === "AbortError" ? [waiting("stopped")] : []));
    if (error.name !== "AbortError") showError(error.message);
  } finally {
    if (isMine()) setBusy(false);
  }
}

function request() {
  const body = { question: byId("question").value };
  if (byId("max-rounds").value) body.max_rounds = Number(byId("max-rounds").value);
  if (byId("rule").value) body.rule = byId("rule").value;
  if (byId("seed").value) body.seed = Number(byId("seed").value);
  return body;
}

function setBusy(isBusy) {
  byId("solve").disabled = isBusy;
  byId("stop").hidden = !isBusy;
}

function show(event, data) {
  if (event === "attempt") showAttempt(data);
  else if (event === "round") showVerdict(data);
  else if (event === "answer") showAnswer(data);
  else if (event === "error") {
    byId("answer").replaceChildren();
    showError(data.error.message);
  }
}

function roundPlace(number) {
  const found = byId(`round-${number}`);
  if (found) return found;
  const made = element(
    "li",
    { id: `round-${number}`, className: "round" },
    element("h3", { textContent: `Round ${number}` }),
    side("intuitive", "Intuitive"),
    element("div", { className: "deliberate" }, side("knowledge", "Knowledge"), side("deep", "Deep")),
    element("p", { className: "verdict" }, waiting("drawing ...")),
  );
  byId("rounds").append(made);
  return made;
}

function side(name, title) {
  return element("article", { className: `side ${name}` }, element("h4", { textContent: title }), waiting("..."));
}

function showAttempt({ round, role, text, answer }) {
  const names = { intuitive_reasoner: "intuitive", knowledge_generator: "knowledge", deep_reasoner: "deep" };
  const place = roundPlace(round).querySelector(`.${names[role]}`);
  const body = element("p", { className: "text" }, ...mathematics(text));
  const found = role === "knowledge_generator" ? [] : [answerOf(answer)];
  place.replaceChildren(place.firstElementChild, body, ...found);
}

function answerOf(answer) {
  const shown = answer === null ? element("em", { textContent: "no answer" }) : element("b", {}, ...asMath(answer));
  return element("p", { className: "given" }, "answers ", shown);
}

function asMath(answer) {
  return mathematics(/\\[a-z]/i.test(answer) ? `\\(${answer}\\)` : answer);
}

// The sides may agree by an answer of an earlier round, so equal signs would say too much.
function showVerdict({ round, body: { intuitive, deep, agreed } }) {
  const place = roundPlace(round).querySelector(".verdict");
  const say = (attempt) => (attempt?.answer == null ? ["no answer"] : asMath(attempt.answer));
  const sides = intuitive && deep ? [...say(intuitive), "  |  ", ...say(deep), ":  "] : [];
  place.className = agreed ? "verdict agreed" : "verdict differs";
  place.replaceChildren(...sides, agreed ? "the sides agree" : "no agreement yet");
}

function showAnswer(solved) {
  const { answer, outcome, confidence, num_rounds: rounds, usage } = solved;
  const shown = answer === null ? ["No answer"] : asMath(answer);
  const sure = confidence === null || confidence === undefined ? "" : `, confidence ${Math.round(100 * confidence)}%`;
  byId("answer").replaceChildren(
    element("p", { className: `final ${outcome}` }, ...shown),
    element("p", { className: "hint" },
      `${OUTCOMES[outcome] ?? outcome}${sure}; ${rounds} ${rounds === 1 ? "round" : "rounds"}, ` +
      `${usage.num_generations} texts, ${usage.completion_tokens} tokens`),
  );
  for (const left of document.querySelectorAll("#rounds .waiting")) left.textContent = "not drawn";
}

const waiting = (text) => element("span", { className: "waiting", textContent: text });
