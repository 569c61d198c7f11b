// Making elements: element("td", { className: "id" }, "text", anotherElement).

export const byId = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function showError(message) {
  const place = byId("error");
  place.textContent = message;
  place.hidden = !message;
}
