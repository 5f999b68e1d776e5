// Samples: an index of numbers for each task, read at once, and chunks of texts, read when they are seen or searched.

const tasks = new Map(META.tasks.map((task) => [task.name, { task, index: null, rows: [], waiting: new Map() }]));

/** The index of a task, once it is unpacked. */
async function loadIndex(name) {
  const kept = tasks.get(name);
  kept.index ??= await unpackJson(kept.task.index);
  return kept.index;
}

/** The texts of a sample if they are there. */
const textsOf = (name, at) => tasks.get(name).rows[at];

/** Reads the chunk that holds a sample. */
function loadTexts(name, at) {
  const kept = tasks.get(name);
  const number = Math.floor(at / kept.task.size);
  if (!kept.waiting.has(number)) {
    kept.waiting.set(number, unpackJson(kept.task.chunks[number]).then((rows) => {
      rows.forEach((row, offset) => { kept.rows[number * kept.task.size + offset] = row; });
    }));
  }
  return kept.waiting.get(number);
}

const loadAllTexts = (name) => Promise.all(
  tasks.get(name).task.chunks.map((_, number) => loadTexts(name, number * tasks.get(name).task.size)));

/** "right", "wrong" or "failed"; "" where there is no answer, or the task is not scored as right or wrong. */
function verdict(task, index, system, at) {
  const column = index.systems[system];
  if (!column || column.said[at] === 0) return "";
  if (column.said[at] === 2) return "failed";
  if (!task.binary || column.score[at] === null) return "";
  return column.score[at] >= 100 ? "right" : "wrong";
}

function searchText(row) {
  row.found ??= [row.q, ...row.r, row.b, ...row.a.map((answer) => (answer ? answer[0] : ""))].join("\n").toLowerCase();
  return row.found;
}

const KEEP = {
  all: () => true,
  wrong: (a) => a.verdict === "wrong" || a.verdict === "failed",
  right: (a) => a.verdict === "right",
  failed: (a) => a.said === 2,
  open: (a) => a.said === 0,
  differ: (a, b) => a.score !== null && b.score !== null && a.score !== b.score,
  better: (a, b) => a.score !== null && b.score !== null && a.score > b.score,
  worse: (a, b) => a.score !== null && b.score !== null && a.score < b.score,
  both: (a, b) => a.verdict !== "right" && b.verdict !== "right" && a.said > 0 && b.said > 0,
};

/** The samples (positions) that the filters leave, in the order wanted. The texts are there if state.q is set. */
function select(task, index, values) {
  const first = Math.max(0, task.systems.indexOf(values.a));
  const second = task.systems.indexOf(values.b);
  const about = (system, at) => (system < 0 ? { score: null, said: 0, verdict: "" } : {
    score: index.systems[system].score[at], said: index.systems[system].said[at], verdict: verdict(task, index, system, at),
  });
  const keep = KEEP[values.show] || KEEP.all;
  const kind = index.types.indexOf(values.type);
  const words = values.q.trim().toLowerCase();
  const found = [];
  for (let at = 0; at < task.samples; at += 1) {
    if (values.type && index.type[at] !== kind) continue;
    if (values.patient && index.patient[at] !== Number(values.patient)) continue;
    if (values.right && index.reference[at] !== Number(values.right)) continue;
    if (values.answer && index.systems[first].answer[at] !== Number(values.answer)) continue;
    if (values.ecg && !index.ecg[at].some((ecg) => META.ecgs[ecg])) continue;
    if (values.show !== "all" && !keep(about(first, at), about(second, at))) continue;
    if (words && !searchText(textsOf(task.name, at)).includes(words)) continue;
    found.push(at);
  }
  return sorted(found, index, values.sort, first, second);
}

function sorted(found, index, order, first, second) {
  const scores = index.systems[first].score;
  if (order === "worst") found.sort((x, y) => (scores[x] ?? 101) - (scores[y] ?? 101) || x - y);
  if (order === "change" && second >= 0) {
    const others = index.systems[second].score;
    const size = (at) => Math.abs((scores[at] ?? 0) - (others[at] ?? 0));
    found.sort((x, y) => size(y) - size(x) || x - y);
  }
  return found;
}
