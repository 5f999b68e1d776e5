// Results (tables of runs and comparisons) and what is known of each run.

const isSignature = (note) => note.length > 2 && note.startsWith("`") && note.endsWith("`");

/** A table; the part of its title that stands above it already is left out. */
function tableOf(table, heading) {
  const notes = table.notes.filter((note) => !isSignature(note));
  const signatures = table.notes.filter(isSignature);
  return el("section", { class: "table" },
    el("h3", {}, visible(table.title.startsWith(heading) ? table.title.slice(heading.length) : table.title)),
    table.columns.length > 0 && el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": table.title },
      el("table", {},
        el("thead", {}, el("tr", {}, table.columns.map((name, at) =>
          el("th", { scope: "col", class: table.right[at] ? "number" : null }, visible(name))))),
        el("tbody", {}, table.rows.map((row) => el("tr", {}, row.map((cell, at) => cellOf(cell, at, table)))))),
    ),
    notes.map((note) => el("p", { class: "note" }, visible(note))),
    signatures.length > 0 && el("details", { class: "note" },
      el("summary", {}, signatures.length === 1 ? "Signature" : "Signatures"),
      signatures.map((note) => el("code", { class: "signature" }, visible(note.slice(1, -1))))));
}

/** "77.2 [75.9, 78.4]": the interval is set smaller. */
function cellOf(cell, at, table) {
  if (at === 0) return el("th", { scope: "row", class: cell.startsWith("  ") ? "inner" : null }, visible(cell.trim()));
  const parts = /^(\S+) (\[.*\]†?)$/.exec(cell);
  const inside = parts ? [visible(parts[1]), " ", el("span", { class: "interval" }, visible(parts[2]))] : [visible(cell)];
  return el("td", { class: table.right[at] ? "number" : null }, inside);
}

function resultsView() {
  const groups = new Map();
  for (const table of META.tables) {
    const key = table.run ? `${table.task}\n${table.run}` : "";
    groups.set(key, [...(groups.get(key) || []), table]);
  }
  const several = META.runs.length > 1;
  const sections = [...groups].map(([key, found]) => {
    const [task, run] = key.split("\n");
    const about = META.tasks.find((part) => part.name === task);
    const heading = key ? `${about.title}${several ? ` — ${run}` : ""}` : "Runs compared";
    return el("section", { class: "group" }, el("h2", {}, visible(heading)), found.map((table) => tableOf(table, key ? `${about.title}: ` : "")));
  });
  const unfinished = META.runs.filter((run) => !run.done).map((run) =>
    el("p", { class: "note warning" }, visible(`${run.name} is ${run.facts.status}: what is not scored yet has no table.`)));
  const synthetic = META.tasks.some((task) => task.synthetic) &&
    el("p", { class: "note" }, "Synthetic recordings: no real person's ECG, and no claim about real ones.");
  return [...unfinished, synthetic, ...sections,
    sections.length === 0 && el("p", { class: "note" }, "Nothing is scored yet; the answers are under Samples.")];
}

function aboutView() {
  return [
    ...META.runs.map((run) => el("section", { class: "group" },
      el("h2", {}, visible(run.name)),
      el("dl", { class: "facts" }, Object.entries(run.facts).map(([name, value]) =>
        [el("dt", {}, name), el("dd", {}, visible(value))])),
      el("h3", {}, "Systems"),
      el("dl", { class: "facts" }, Object.entries(run.systems).map(([name, line]) =>
        [el("dt", {}, visible(name)), el("dd", {}, visible(line))])),
      run.warnings.length > 0 && [el("h3", {}, "Warnings"), el("ul", {}, run.warnings.map((note) => el("li", {}, visible(note))))],
      run.signatures.length > 0 && [el("h3", {}, "Signatures"), run.signatures.map((text) =>
        el("code", { class: "signature" }, visible(text)))])),
    ...META.tasks.filter((task) => task.notes.length).map((task) => el("section", { class: "group" },
      el("h2", {}, visible(task.title)), task.notes.map((note) => el("p", { class: "note warning" }, visible(note))))),
    el("section", { class: "group" }, el("h2", {}, "This page"),
      el("p", {}, META.ids ? "Identifiers are shown, as was asked for."
        : "Samples, recordings and patients are numbered in the order in which the run asked about them; their identifiers are not on this page. Texts are as they were asked and answered."),
      el("p", {}, `${count(META.tasks.reduce((sum, task) => sum + task.samples, 0), "sample")}, ${count(Object.keys(META.ecgs).length, "ECG")}.`)),
  ];
}
