// What is shown, kept in the address behind "#", so that every view and sample has a link.

const DEFAULTS = {
  view: "results", // results, confusion, samples or about
  task: META.tasks[0].name,
  n: "", // the sample that is open, from 1
  a: "", // the system whose answers are judged; empty: the first
  b: "", // the system that it is compared with; empty: none
  show: "all",
  type: "",
  patient: "",
  right: "", // a cell of the confusion: number of the right answer's class
  answer: "", // ... and of the given one's
  ecg: "", // "1": only samples whose ECG is on the page
  sort: "order",
  q: "",
};
const FILTERS = ["show", "type", "patient", "right", "answer", "ecg", "sort", "q"];
const state = { ...DEFAULTS };
const listeners = [];

const currentTask = () => META.tasks.find((task) => task.name === state.task) || META.tasks[0];
const systemNumber = (label) => Math.max(0, currentTask().systems.indexOf(label));
const otherSystem = () => currentTask().systems.indexOf(state.b);

function addressOf(values) {
  const kept = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value !== DEFAULTS[name]) kept.set(name, value);
  return `#${kept}`;
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(DEFAULTS)) state[name] = given.get(name) ?? DEFAULTS[name];
  if (given.has("n") && !given.has("view")) state.view = "samples";
  state.task = currentTask().name;
}

/** Changes what is shown. A change of task or of a filter closes the open sample unless one is named. */
function change(values, { step = false } = {}) {
  const before = { ...state };
  Object.assign(state, values);
  if (state.task !== before.task) Object.assign(state, { n: "", type: "", right: "", answer: "", a: "", b: "", ...values });
  const address = addressOf(state);
  if (address !== location.hash) {
    if (step) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  }
  for (const listener of listeners) listener(before);
}
