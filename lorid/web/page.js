// The page: tabs, the token, and what is served. Asking and grading have files of their own.

import { startAsking } from "./ask.js";
import { byId, element, showError } from "./dom.js";
import { getJson, keepToken } from "./endpoint.js";
import { startGrading } from "./grade.js";

const tabs = [...document.querySelectorAll("[role=tab]")];

// Not the panel's own id: the browser would move the keyboard's place there.
const hashOf = (tab) => `#/${tab.getAttribute("aria-controls")}`;

function choose(tab) {
  for (const one of tabs) {
    const isChosen = one === tab;
    one.setAttribute("aria-selected", String(isChosen));
    one.tabIndex = isChosen ? 0 : -1;
    byId(one.getAttribute("aria-controls")).hidden = !isChosen;
  }
  showError("");
  history.replaceState(null, "", hashOf(tab));
}

// As the ARIA practices have it: arrows move between tabs, Tab goes on into the panel.
function onKey(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length];
  choose(next);
  next.focus();
}

async function describe() {
  const place = byId("served");
  try {
    const { triple, facts } = await getJson("v1/triple");
    place.textContent = `serves ${triple}`;
    byId("card").replaceChildren(...card(triple, facts));
    byId("access").hidden = true;
  } catch (error) {
    byId("access").hidden = error.status !== 401;
    place.textContent = error.status === 401 ? "locked" : error.message;
  }
}

function card(triple, facts) {
  const rows = facts.map(({ name, value }) =>
    element("tr", {}, element("th", { scope: "row", textContent: name }), element("td", {}, ...withCode(value))),
  );
  return [element("h2", { textContent: triple }), element("table", { className: "card" }, ...rows)];
}

// Code is between backticks.
function withCode(text) {
  return text.split("`").map((part, index) => (index % 2 ? element("code", { textContent: part }) : part));
}

for (const tab of tabs) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", onKey);
}
byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken(byId("token").value);
  describe();
});
choose(tabs.find((tab) => hashOf(tab) === location.hash) ?? tabs[0]);
startAsking();
startGrading({ show: () => choose(byId("tab-grade")) });
describe();
