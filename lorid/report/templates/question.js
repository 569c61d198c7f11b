// One question, whole: the verdict and why, then its rounds, intuitive | knowledge -> deep.
//
//   place.replaceChildren(...questionView(entry, detail, facts))

import { element } from "./dom.js";
import { mathematics } from "./mathematics.js";

const MET = {
  paper: "The sets of the two sides met",
  "same-round": "Both sides gave one answer",
  bayes: "The posterior reached its bound",
};

export function questionView(entry, detail, facts) {
  const used = detail.rounds.slice(0, entry.rounds);
  const spare = detail.rounds.slice(entry.rounds);
  return [
    element("h3", { id: "question-title", tabIndex: -1, textContent: `Question ${entry.id}` }),
    element("p", { className: "text asked" }, ...mathematics(entry.question)),
    element("p", { className: `final ${standing(entry)}` }, ...answerNodes(entry.answer)),
    element("p", { id: "why", className: "why" }, ...verdict(entry, detail, facts)),
    element("p", { className: "hint" }, ...entry.buckets.map((one) => tag(facts.buckets[one]))),
    element("ol", { className: "rounds", ariaLabel: "Rounds" },
      ...used.map((round, index) => roundView(round, index + 1, entry, detail))),
    ...sparePart(spare, entry, detail),
  ];
}

export function tag(text, kind = "") {
  return element("span", { className: `tag ${kind}`, textContent: text });
}

export function standing(entry) {
  if (entry.correct === null) return entry.outcome;
  return entry.correct ? "agreed" : "no_answer";
}

export const answerNodes = (answer) => (answer === null ? ["no answer"] : asMath(answer));

function asMath(answer) {
  return mathematics(/\\[a-z]/i.test(answer) ? `\\(${answer}\\)` : answer);
}

function verdict(entry, detail, { rule }) {
  const { outcome, answer, gold } = entry;
  const told = [];
  if (outcome === "agreed") {
    told.push(`${MET[rule]} in round ${detail.met} at `, ...answerNodes(answer), `: ${givenIn(detail)}.`);
  } else if (answer !== null) {
    told.push(`No agreement in ${count(entry.rounds, "round")}. The fallback `, ...answerNodes(answer),
      ` has most votes: ${givenIn(detail)}.`);
  } else {
    told.push(`No answer after ${count(entry.rounds, "round")}.`);
  }
  if (gold === null) told.push(" There is no label.");
  else told.push(" The label is ", ...asMath(gold), detail.reason ? `: ${detail.reason}.` : ".");
  const sure = detail.confidence === null ? "" : ` Confidence ${Math.round(100 * detail.confidence)}%;`;
  told.push(`${sure} ${count(detail.generations, "text")}.`);
  return told;
}

function givenIn({ intuitive, deep }) {
  const say = (side, rounds) =>
    rounds.length ? `the ${side} side gave it in ${rounds.length > 1 ? "rounds" : "round"} ${listed(rounds)}`
      : `the ${side} side never gave it`;
  return `${say("intuitive", intuitive)}, ${say("deep", deep)}`;
}

function listed(rounds) {
  return rounds.length < 2 ? rounds.join("") : `${rounds.slice(0, -1).join(", ")} and ${rounds.at(-1)}`;
}

const count = (number, name) => `${number} ${name}${number === 1 ? "" : "s"}`;

function sparePart(spare, entry, detail) {
  const parts = [];
  if (spare.length) {
    const first = entry.rounds + 1;
    parts.push(element("details", {},
      element("summary", { textContent: `${count(spare.length, "round")} drawn after the decision` }),
      element("ol", { className: "rounds", start: first },
        ...spare.map((round, index) => roundView(round, first + index, entry, detail)))));
  }
  if (detail.left_out) {
    parts.push(element("p", { className: "hint", textContent:
      `${count(detail.left_out, "round")} after the decision left out: see the attempts file` }));
  }
  return parts;
}

function roundView([intuitive, knowledge, deep], number, entry, detail) {
  const isMet = number === detail.met;
  return element("li", { className: isMet ? "round met" : "round" },
    element("h4", { className: "number", textContent: `Round ${number}` }),
    attemptView("Intuitive", "intuitive", intuitive, entry),
    element("div", { className: "deliberate" }, knowledgeView(knowledge), attemptView("Deep", "deep", deep, entry)),
    element("p", { className: isMet ? "verdict agreed" : "verdict" },
      ...shortly(intuitive), "  |  ", ...shortly(deep), ":  ", standingOf(number, entry, detail)));
}

function standingOf(number, entry, detail) {
  if (number > entry.rounds) return "drawn after the decision";
  return number === detail.met ? "the sides agree" : "no agreement yet";
}

const shortly = (attempt) => (attempt === null ? ["not drawn"] : answerNodes(attempt[1]));

function side(title, kind, ...children) {
  return element("article", { className: `side ${kind}` }, element("h5", { textContent: title }), ...children);
}

function attemptView(title, kind, attempt, entry) {
  if (attempt === null) return side(title, kind, element("p", { className: "waiting", textContent: "not drawn" }));
  const [text, answer, isRight, isCut] = attempt;
  const marks = [];
  if (entry.gold !== null) marks.push(" ", isRight ? tag("right", "correct") : tag("not right", "incorrect"));
  if (isCut) marks.push(" ", tag("cut off", "undecided"));
  return side(title, kind,
    element("p", { className: "text" }, ...mathematics(text)),
    element("p", { className: "given" }, "answers ", element("b", {}, ...answerNodes(answer)), ...marks));
}

function knowledgeView(knowledge) {
  if (knowledge === null) return side("Knowledge", "knowledge", element("p", { className: "waiting", textContent: "not drawn" }));
  const [text, faults] = knowledge;
  const caught = faults.length
    ? [element("p", { className: "given" }, "the gate refuses it: ", ...faults.map((one) => tag(one, "undecided")))]
    : [];
  return side("Knowledge", "knowledge", element("p", { className: "text" }, ...mathematics(text)), ...caught);
}
