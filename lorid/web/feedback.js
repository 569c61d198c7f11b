// What a tutor says of one submission: its lines with the one that departs marked, and a hint.
//
//   const place = feedbackOf(item, result);     // null when there is nothing to say
//
// A submission and rules are text of strangers: they become text nodes, never markup. What the line
// is exactly may be the answer itself, so it is shown when it is asked for.

import { element } from "./dom.js";
import { mathematics } from "./mathematics.js";

export function feedbackOf(item, result) {
  const note = result.feedback;
  if (!note || (!note.departure && !note.hint.length)) return null;
  return element(
    "div",
    { className: "feedback" },
    ...(note.departure ? departure(item.submission ?? "", note.departure) : []),
    ...(note.hint.length ? hint(note.hint) : []),
  );
}

function departure(submission, { line, claim, expected }) {
  const lines = submission.split("\n").map((text, index) =>
    index + 1 === line ? element("mark", { className: "line", textContent: text || " " })
      : element("span", { className: "line", textContent: text || " " }));
  return [
    element("p", {}, `Line ${line} does not hold: `, element("code", { textContent: claim })),
    element("pre", { className: "submission", tabIndex: 0, ariaLabel: "The submission" }, ...lines),
    element(
      "details",
      {},
      element("summary", { textContent: "What it is exactly" }),
      element("p", {}, "The left side is ", element("code", { textContent: expected })),
    ),
  ];
}

function hint(rules) {
  return [
    element("p", { className: "hint-title", textContent: "Rules that may help" }),
    element("ul", {}, ...rules.map((rule) => element("li", {}, ...mathematics(rule)))),
  ];
}
