// The confusion of answers: which were right, which were given, over the samples that the filters leave.

const MOST = 12; // rows and columns that are shown one by one

async function confusionView(box) {
  const task = currentTask();
  const index = await loadIndex(task.name);
  if (task.kind !== "qa") {
    put(box, el("p", { class: "note" }, "Reports are free texts, which are not confused with one another. Choose a suite of questions."));
    return;
  }
  const system = systemNumber(state.a);
  const found = select(task, index, { ...DEFAULTS, task: task.name, a: state.a, type: state.type, patient: state.patient });
  const answered = found.filter((at) => index.systems[system].answer[at] >= 0);
  const rows = frequent(answered.map((at) => index.reference[at]));
  const given = frequent(answered.map((at) => index.systems[system].answer[at]));
  const columns = [...rows.filter((name) => given.includes(name)), ...given.filter((name) => !rows.includes(name))].slice(0, MOST);
  const counts = new Map();
  const add = (key) => counts.set(key, (counts.get(key) || 0) + 1);
  for (const at of answered) {
    const right = index.reference[at];
    const answer = index.systems[system].answer[at];
    add(`${right}`);
    add(`${right},${columns.includes(answer) ? answer : "rest"}`);
  }
  put(box,
    el("p", { class: "note" }, `Rows: the right answer. Columns: what ${task.systems[system]} said. ${count(answered.length, "answer")}; shading is the share of the row. A cell opens its samples.`),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Confusion of answers" },
      el("table", { class: "confusion" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "right answer"), el("th", { scope: "col", class: "number" }, "n"),
          columns.map((name) => el("th", { scope: "col", class: "number", title: index.classes[name] }, el("span", {}, visible(index.classes[name])))),
          el("th", { scope: "col", class: "number" }, "others"))),
        el("tbody", {}, rows.slice(0, MOST).map((row) => el("tr", {},
          el("th", { scope: "row" }, visible(index.classes[row])),
          el("td", { class: "number" }, counts.get(`${row}`).toLocaleString("en")),
          [...columns, "rest"].map((name) => confusionCell(counts, row, name))))))),
    rows.length > MOST && el("p", { class: "note" }, `${count(rows.length - MOST, "rarer right answer")} not shown: choose a question type above.`));
}

function confusionCell(counts, row, column) {
  const n = counts.get(`${row},${column}`) || 0;
  const cell = el("td", { class: row === column ? "number hit" : "number miss" },
    n === 0 ? el("span", { class: "zero" }, "·")
      : column === "rest" ? n.toLocaleString("en")
        : el("button", { type: "button", click: () => change({ ...pickFilters(), view: "samples", right: String(row), answer: String(column) }, { step: true }) }, n.toLocaleString("en")));
  cell.style.setProperty("--share", String(n / counts.get(`${row}`)));
  return cell;
}

const pickFilters = () => ({ ...Object.fromEntries(FILTERS.map((name) => [name, DEFAULTS[name]])), type: state.type, patient: state.patient });

/** Values by how often they come. */
function frequent(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
  return [...counts.keys()].sort((x, y) => counts.get(y) - counts.get(x) || x - y);
}
