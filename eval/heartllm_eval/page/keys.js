// The keyboard, and its help.

const KEYS = [
  ["j or ↓", "next sample"], ["k or ↑", "previous sample"], ["/", "search"], ["w", "wrong only, or all"], ["f", "flips only, or all"],
  ["Esc", "close the sample, clear the search"], ["1 2 3 4", "Results, Confusion, Samples, About"], ["+ − 0", "zoom the ECG"],
  ["arrows", "pan the ECG that has the focus"], ["c", "calipers"], ["d", "light or dark"], ["?", "this help"],
];

function openHelp() {
  const dialog = byId("help");
  put(dialog, el("h2", { id: "help-title" }, "Keyboard"),
    el("dl", { class: "facts" }, KEYS.map(([key, what]) => [el("dt", {}, key.split(" ").map((part) => (part === "or" ? " or " : el("kbd", {}, part)))), el("dd", {}, what)])),
    el("button", { type: "button", click: () => dialog.close() }, "Close"));
  dialog.showModal();
}

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.style.colorScheme ? root.style.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.style.colorScheme = dark ? "light" : "dark";
  showTheme();
}

function showTheme() {
  const chosen = document.documentElement.style.colorScheme;
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  byId("theme").textContent = dark ? "Light" : "Dark";
}

const toggleShow = (name) => change({ view: "samples", show: state.show === name ? "all" : name });
const eachEcg = (act) => document.querySelectorAll(".ecg-box").forEach((box) => box.ecg && act(box.ecg));

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape") {
    if (typing) typing.blur();
    change(typing && state.q ? { q: "" } : { n: "" });
    return;
  }
  if (typing) return;
  const acts = {
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
    "/": () => { change({ view: "samples" }); later(() => byId("filter-q")?.focus()); },
    w: () => toggleShow("wrong"), f: () => otherSystem() >= 0 && toggleShow("differ"), d: toggleTheme, "?": openHelp,
    "+": () => eachEcg((ecg) => ecg.zoom(1.5)), "-": () => eachEcg((ecg) => ecg.zoom(1 / 1.5)), 0: () => eachEcg((ecg) => ecg.reset()),
    c: () => eachEcg((ecg) => ecg.measure(!ecg.measuring)),
    ...Object.fromEntries(Object.keys(VIEWS).map((name, number) => [number + 1, () => change({ view: name }, { step: true })])),
  };
  const act = acts[event.key];
  if (!act || (event.key.startsWith("Arrow") && state.view !== "samples")) return;
  event.preventDefault();
  act();
}
