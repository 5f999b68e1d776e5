// Puts the parts together: tabs, the view that is chosen, and what follows when the state changes.

const VIEWS = { results: "Results", confusion: "Confusion", samples: "Samples", about: "About" };
const content = byId("content");
const list = new SampleList((at) => change({ n: String(at + 1) }, { step: !state.n }));
const later = (act) => requestAnimationFrame(() => requestAnimationFrame(act));
let shown = []; // the samples that the filters leave
let turn = 0; // counts renderings: a slow one gives way to a later one

function tabs() {
  put(byId("tabs"), ...Object.entries(VIEWS).map(([name, text]) =>
    el("a", { href: addressOf({ ...state, view: name, n: name === "samples" ? state.n : "" }), "aria-current": state.view === name ? "page" : null }, text)));
}

async function render(before) {
  turn += 1;
  const mine = turn;
  tabs();
  document.body.dataset.view = state.view;
  document.body.classList.toggle("open", state.view === "samples" && state.n !== "");
  if (state.view === "results" || state.view === "about") {
    if (before.view !== state.view || !before.task) put(content, ...(state.view === "results" ? resultsView() : aboutView()).filter(Boolean));
    return;
  }
  const task = currentTask();
  const index = await loadIndex(task.name);
  if (state.view === "samples" && state.q.trim()) await loadAllTexts(task.name);
  if (mine !== turn) return;
  if (state.view === "confusion") {
    const box = el("div", {});
    put(content, filterForm(index, false), box);
    await confusionView(box);
    return;
  }
  renderSamples(task, index, before);
}

function renderSamples(task, index, before) {
  const same = before.view === "samples" && ["task", "a", "b", ...FILTERS].every((name) => before[name] === state[name]);
  let detail = byId("detail");
  if (!same || !detail) {
    shown = select(task, index, state);
    const typing = document.activeElement && document.activeElement.id === "filter-q" && document.activeElement;
    const chosen = [["right", "right answer"], ["answer", "answered"]].filter(([name]) => state[name]).map(([name, text]) =>
      el("button", { type: "button", class: "chip", click: () => change({ [name]: "" }) }, visible(`${text}: ${index.classes[state[name]]} ×`)));
    const form = filterForm(index, true);
    if (typing) form.querySelector("#filter-q").closest("label").replaceChild(typing, form.querySelector("#filter-q"));
    const many = `${shown.length.toLocaleString("en")} of ${count(task.samples, "sample")}`;
    detail = el("section", { id: "detail", "aria-label": "Sample" });
    put(content, form, el("p", { class: "note count" }, many, chosen), el("div", { class: "panes" }, list.box, detail));
    if (typing) typing.focus();
    list.set(task, index, shown);
    announce(many);
  }
  list.reveal();
  list.draw();
  if (state.n) {
    const close = el("button", { type: "button", class: "close", click: () => change({ n: "" }) }, "← All samples");
    const box = el("div", {});
    put(detail, close, box);
    sampleView(box, shown.indexOf(Number(state.n) - 1), shown.length);
    if (before.n !== state.n) detail.scrollTop = 0;
  } else {
    put(detail, el("p", { class: "note empty" }, shown.length ? "Choose a sample, or press j." : "No sample fits the filters."));
  }
}

/** Opens the next (1) or previous (-1) sample of those shown. */
function step(by) {
  if (state.view !== "samples") { change({ view: "samples" }, { step: true }); return; }
  if (!shown.length) return;
  const at = shown.indexOf(Number(state.n) - 1);
  const next = at < 0 ? 0 : Math.min(Math.max(at + by, 0), shown.length - 1);
  change({ n: String(shown[next] + 1) }, { step: !state.n });
}

function arrive() {
  const before = { ...state };
  readAddress();
  render(before);
}

listeners.push(render);
addEventListener("hashchange", arrive);
addEventListener("popstate", arrive);
addEventListener("keydown", onKey);
byId("theme").addEventListener("click", toggleTheme);
byId("help-button").addEventListener("click", openHelp);
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); content.focus(); }); // "#" is the state's
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
showTheme();
readAddress();
render({}).then(() => { document.documentElement.dataset.ready = String(Math.round(performance.now())); }); // ms since it was opened
