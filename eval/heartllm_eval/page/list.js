// The list of samples. Only the rows in view exist, so that 40,000 scroll as well as 40.

const ROW = 58; // pixels; also in samples.css

class SampleList {
  constructor(open) {
    this.open = open;
    this.shown = [];
    this.space = el("div", { class: "space", role: "presentation" });
    this.box = el("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": "Samples", scroll: () => this.later() }, this.space);
    new ResizeObserver(() => this.later()).observe(this.box);
  }

  set(task, index, shown) {
    Object.assign(this, { task, index, shown });
    this.space.style.height = `${shown.length * ROW}px`;
    this.draw();
  }

  later() {
    if (this.waits) return;
    this.waits = true;
    requestAnimationFrame(() => { this.waits = false; this.draw(); });
  }

  /** Brings the open sample into view. */
  reveal() {
    const at = this.shown.indexOf(Number(state.n) - 1);
    if (at < 0) return;
    const top = at * ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + ROW > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW - this.box.clientHeight;
    this.draw();
  }

  draw() {
    if (!this.task) return;
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - 5);
    const last = Math.min(this.shown.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + 5);
    const rows = [];
    for (let at = first; at < last; at += 1) rows.push(this.row(at));
    put(this.space, ...rows);
    const active = rows.find((row) => row.getAttribute("aria-selected") === "true");
    if (active) this.box.setAttribute("aria-activedescendant", active.id);
    else this.box.removeAttribute("aria-activedescendant");
  }

  row(at) {
    const sample = this.shown[at];
    const texts = textsOf(this.task.name, sample);
    if (!texts) loadTexts(this.task.name, sample).then(() => this.later());
    const system = systemNumber(state.a);
    const others = otherSystem() >= 0 ? [system, otherSystem()] : [system];
    const said = texts && others.map((number) => (others.length > 1 ? `${"AB"[others.indexOf(number)]}: ` : "") + saidBy(texts.a[number])).join("   ");
    const row = el("div", {
      class: "row", role: "option", id: `row-${sample}`, "aria-selected": String(Number(state.n) === sample + 1),
      "aria-setsize": this.shown.length, "aria-posinset": at + 1, click: () => this.open(sample),
    },
    el("span", { class: "marks" }, mark(this.task, this.index, system, sample), otherSystem() >= 0 && mark(this.task, this.index, otherSystem(), sample)),
    el("span", { class: "line" }, el("b", {}, String(sample + 1)), " ", texts ? visible(texts.q || texts.r[0] || "") : "…"),
    el("span", { class: "line faint" }, texts ? visible(said) : ""));
    row.style.top = `${at * ROW}px`;
    return row;
  }
}

const saidBy = (answer) => (!answer ? "(no answer yet)" : answer[1] ? `(${answer[1]})` : answer[0] || "(empty answer)");

const SIGNS = { right: "✓", wrong: "✗", failed: "!", "": "·" };

/** A sign for a verdict, or the score where answers are not right or wrong. */
function mark(task, index, system, at) {
  const found = verdict(task, index, system, at);
  const score = index.systems[system].score[at];
  if (!found && score !== null && index.systems[system].said[at]) {
    return el("span", { class: "mark", title: task.figure }, score.toFixed(0));
  }
  return el("span", { class: `mark ${found}`, role: "img", "aria-label": found || "not scored", title: found || "not scored" }, SIGNS[found]);
}
