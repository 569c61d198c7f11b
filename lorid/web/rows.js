// JSON lines into items: what is wrong with a line is said with its number, and loses no other line.
//
//   const { items, problems } = readItems(text)

const FIELDS = ["id", "question", "reference", "submission"];

export function readItems(text) {
  const items = [];
  const problems = [];
  const ids = new Set();
  text.split("\n").forEach((line, index) => {
    if (!line.trim()) return;
    try {
      items.push(readItem(line, index + 1, ids));
    } catch (error) {
      problems.push(`line ${index + 1}: ${error.message}`);
    }
  });
  return { items, problems };
}

function readItem(line, number, ids) {
  let row;
  try {
    row = JSON.parse(line);
  } catch {
    throw new Error("is not JSON");
  }
  if (row === null || typeof row !== "object" || Array.isArray(row)) throw new Error("is not an object");
  const item = Object.fromEntries(FIELDS.filter((name) => row[name] !== undefined && row[name] !== null)
    .map((name) => [name, typeof row[name] === "number" ? String(row[name]) : row[name]]));
  if (typeof item.question !== "string" || !item.question.trim()) throw new Error("has no question");
  if (item.reference === undefined && item.submission === undefined)
    throw new Error("has neither reference nor submission");
  item.id = item.id ?? `line ${number}`;
  if (ids.has(item.id)) throw new Error(`repeats the id ${item.id}`);
  ids.add(item.id);
  return item;
}
