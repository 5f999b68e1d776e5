// One sample: what was asked, what is right, what every system said, and the ECG where it is on the page.

let ecgViews = [];

async function sampleView(box, position, total) {
  const task = currentTask();
  const at = Number(state.n) - 1;
  const index = await loadIndex(task.name);
  await loadTexts(task.name, at);
  if (Number(state.n) - 1 !== at || currentTask() !== task) return; // another was opened meanwhile
  const texts = textsOf(task.name, at);
  const patient = index.patient[at];
  ecgViews = [];
  const shade = META.shades && META.shades[task.name][at];
  const ecgs = index.ecg[at].map((number) => ecgOf(number, index.ecg[at], shade));
  put(box,
    el("div", { class: "sample-head" },
      el("h2", { tabindex: "-1", id: "sample-title" }, `Sample ${(at + 1).toLocaleString("en")}`),
      el("p", { class: "note" }, position >= 0 ? `${(position + 1).toLocaleString("en")} of ${total.toLocaleString("en")} shown` : "outside the filters", " · ",
        patient ? el("button", { type: "button", class: "link", click: () => change({ patient: String(patient) }) }, `patient ${patient}`) : "patient not known", " · ",
        index.ecg[at].length ? `ECG ${index.ecg[at].map((number) => (META.ecgs[number] ? number : `${number} (not on this page)`)).join(" and ")}` : "no ECG", " · ",
        el("a", { href: addressOf({ view: "samples", task: task.name, n: state.n }) }, "link to this sample"))),
    META.ids && el("p", { class: "note ids" }, visible(`${texts.id}; recordings ${texts.records.join(", ")}; patient ${META.patients[patient - 1] ?? "–"}`)),
    askedOf(task, index, texts, at),
    answersOf(task, index, texts, at),
    ...ecgs);
  for (const start of ecgViews) start();
}

function askedOf(task, index, texts, at) {
  const fact = (name, value) => value && [el("dt", {}, name), el("dd", {}, value)];
  return el("dl", { class: "facts asked" },
    fact("question", texts.q ? el("span", { class: "question" }, visible(texts.q)) : task.kind === "report" && "Write the report."),
    fact("options", texts.o.length > 0 && visible(texts.o.join("; "))),
    fact("patient", texts.b && visible(texts.b)),
    fact("right answer", el("div", { class: "reference" }, texts.r.map((text) => el("p", {}, visible(text))))),
    fact("kind", visible([short(index.types[index.type[at]]), ...Object.entries(texts.s).map(([name, value]) => `${name.replace(/_/g, " ")} ${value}`)].join(" · "))));
}

function answersOf(task, index, texts, at) {
  const scored = task.figures.filter((_, number) => texts.a.some((answer) => answer && answer[2] && answer[2][number] !== null));
  return el("div", { class: "answers" }, task.systems.map((label, system) => {
    const answer = texts.a[system];
    const ranked = answer && answer[3] ? Object.entries(answer[3]).sort((x, y) => y[1] - x[1]) : [];
    const chosen = system === systemNumber(state.a) ? " chosen" : system === otherSystem() ? " other" : "";
    return el("section", { class: `answer${chosen}` },
      el("h3", {}, mark(task, index, system, at), " ", visible(label)),
      !answer ? el("p", { class: "faint" }, "no answer yet, or not asked")
        : answer[1] ? el("p", { class: "failed" }, visible(`no answer: ${answer[1]}`))
          : el("p", { class: "said" }, visible(answer[0]) || el("span", { class: "faint" }, "(empty answer)")),
      answer && answer[2] && scored.length > 0 && el("details", { class: "note" }, el("summary", {}, "Scores"),
        el("dl", { class: "scores" }, scored.map((name) => {
          const value = answer[2][task.figures.indexOf(name)];
          return [el("dt", {}, name), el("dd", {}, value === null || value === undefined ? "–" : value.toFixed(1))];
        }))),
      ranked.length > 0 && el("details", { class: "note" }, el("summary", {}, "Likelihood of each option"),
        el("dl", { class: "scores" }, ranked.map(([name, value]) => [el("dt", {}, visible(name)), el("dd", {}, `${value.toFixed(2)} nats`)]))));
  }));
}

function ecgOf(number, all, shade) {
  const about = META.ecgs[number];
  if (!about) return null;
  const box = el("div", { class: "ecg-box" });
  const name = all.length > 1 ? `ECG ${all.indexOf(number) + 1} of ${all.length}` : "ECG";
  ecgViews.push(async () => {
    const [leads, maps] = [await loadEcg(number), shade && await loadShade(shade)];
    box.ecg = new EcgView(box, about, leads, `${name}: 12 leads, ${(about.length / about.rate).toFixed(1)} seconds, 25 mm/s, 10 mm/mV`, maps);
  });
  return el("figure", { class: "ecg-figure" }, el("figcaption", {}, name), box);
}
