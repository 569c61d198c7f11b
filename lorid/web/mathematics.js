// Text of a model as nodes: LaTeX becomes MathML, everything else stays text and is never markup.
//
//   element.replaceChildren(...mathematics("so \\(x = \\frac{1}{2}\\) for $5"))
//
// A dollar opens mathematics only as in pandoc: no space after it, none before the closing one, and
// no digit after that: "$5 and $10" are prices.

const PARTS = new RegExp(
  [
    "\\$\\$([^]+?)\\$\\$",
    "\\\\\\[([^]+?)\\\\\\]",
    "\\\\\\(([^]+?)\\\\\\)",
    "(?<![\\\\$])\\$(?![\\s$])((?:[^$\\n\\\\]|\\\\.)+?)(?<!\\s)\\$(?![\\d$])",
    "(\\\\boxed\\{(?:[^{}]|\\{[^{}]*\\})*\\})",
  ].join("|"),
  "g",
);
const MAX_CHARS = 2000;
// GSM8K's notes for a calculator, as in <<48/2=24>>, say nothing that the text does not.
const CALCULATOR = /<<[^<>\n]*>>/g;

export function mathematics(text) {
  const nodes = [];
  const clean = text.replace(CALCULATOR, "");
  let end = 0;
  for (const match of clean.matchAll(PARTS)) {
    nodes.push(document.createTextNode(clean.slice(end, match.index)));
    const isDisplayed = match[1] !== undefined || match[2] !== undefined;
    nodes.push(formula(match.slice(1).find((part) => part !== undefined), isDisplayed, match[0]));
    end = match.index + match[0].length;
  }
  nodes.push(document.createTextNode(clean.slice(end)));
  return nodes;
}

function formula(tex, isDisplayed, source) {
  const place = document.createElement("span");
  place.className = "formula";
  try {
    if (tex.length > MAX_CHARS) throw new Error("too long to draw");
    temml.render(tex, place, { displayMode: isDisplayed, throwOnError: true, trust: false, maxExpand: 200 });
  } catch {
    place.textContent = source;
  }
  return place;
}
