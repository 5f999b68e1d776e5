// The form above the samples, and what it chooses.

const LABELS = {
  all: "all answers", wrong: "wrong only", right: "right only", failed: "failed", open: "not answered",
  differ: "flips: any change", better: "flips: A right, B wrong", worse: "flips: A wrong, B right", both: "both wrong",
};
const REPORT_LABELS = { differ: "different scores", better: "A better than B", worse: "A worse than B" };

function choice(name, label, options) {
  const box = el("select", { id: `filter-${name}`, change: (event) => change({ [name]: event.target.value }) },
    options.map(([value, text]) => el("option", { value, selected: state[name] === value }, visible(text))));
  return el("label", { class: "filter" }, el("span", {}, label), box);
}

let allFilters = false; // on a narrow screen, whether more than the search is shown

function filterForm(index, full) {
  const task = currentTask();
  const second = otherSystem() >= 0;
  const shown = ["all", ...(task.binary ? ["wrong", "right"] : []), "failed", "open", ...(second ? ["differ", "better", "worse", ...(task.binary ? ["both"] : [])] : [])];
  const label = (name) => (task.binary ? LABELS[name] : REPORT_LABELS[name] || LABELS[name]);
  const systems = task.systems.map((name, number) => [number ? name : "", name]);
  const people = [...new Set(index.patient)].filter(Boolean).length;
  return el("form", { class: allFilters ? "filters all" : "filters", submit: (event) => event.preventDefault(), "aria-label": "Filters" },
    META.tasks.length > 1 && choice("task", "suite", META.tasks.map((part) => [part.name, part.title])),
    choice("a", full ? "system (A)" : "system", systems),
    full && task.systems.length > 1 && choice("b", "compared with (B)", [["", "nothing"], ...task.systems.map((name) => [name, name])]),
    full && choice("show", "show", shown.map((name) => [name, label(name)])),
    index.types.length > 1 && choice("type", "question type", [["", "all types"], ...index.types.map((name) => [name, short(name)])]),
    full && choice("sort", "order", [["order", "as asked"], ["worst", "lowest score first"], ...(second ? [["change", "largest change first"]] : [])]),
    el("label", { class: "filter narrow" }, el("span", {}, `patient (of ${people.toLocaleString("en")})`),
      el("input", { id: "filter-patient", type: "number", min: "1", value: state.patient, placeholder: "all", change: (event) => change({ patient: event.target.value }) })),
    full && el("label", { class: "filter wide" }, el("span", {}, "search in texts"),
      el("input", { id: "filter-q", type: "search", value: state.q, placeholder: "question, answer, reference", autocomplete: "off", input: slowly((event) => change({ q: event.target.value })) })),
    full && Object.keys(META.ecgs).length > 0 && el("label", { class: "filter tick" },
      el("input", { type: "checkbox", id: "filter-ecg", checked: state.ecg === "1", change: (event) => change({ ecg: event.target.checked ? "1" : "" }) }), el("span", {}, "with ECG only")),
    full && el("button", { type: "button", class: "more", "aria-expanded": String(allFilters), click: (event) => {
      allFilters = event.currentTarget.closest("form").classList.toggle("all");
      event.currentTarget.setAttribute("aria-expanded", String(allFilters));
    } }, "Filters"),
    full && el("button", { type: "button", class: "clear", click: () => change(Object.fromEntries(FILTERS.map((name) => [name, DEFAULTS[name]]))) }, "Clear"));
}

/** Calls a function once typing has paused. */
function slowly(act) {
  let timer = 0;
  return (event) => { clearTimeout(timer); timer = setTimeout(act, 150, event); };
}
