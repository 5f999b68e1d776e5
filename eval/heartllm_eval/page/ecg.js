// An ECG on its paper: 25 mm/s and 10 mm/mV, drawn in millimetres.

const LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"];
const SPEED = 25;
const GAIN = 10;
const PULSE = 15; // room for the calibration pulse
const LAYOUTS = {
  "3 × 4": { height: 26, rows: [["I", "aVR", "V1", "V4"], ["II", "aVL", "V2", "V5"], ["III", "aVF", "V3", "V6"], ["II"]] },
  "6 × 2": { height: 22, rows: [["I", "V1"], ["II", "V2"], ["III", "V3"], ["aVR", "V4"], ["aVL", "V5"], ["aVF", "V6"]] },
  "12 × 1": { height: 20, rows: LEADS.map((lead) => [lead]) },
};
const MISSING = -32768;
const signals = new Map();

/** The samples of an ECG, 12 arrays in millivolts; NaN where they are missing. */
async function loadEcg(number) {
  if (!signals.has(number)) signals.set(number, unpackEcg(META.ecgs[number]));
  return signals.get(number);
}

async function unpackEcg(about) {
  const steps = new DataView(await unpack(about.chunk));
  return LEADS.map((_, lead) => {
    const values = new Float32Array(about.length);
    const sum = new Int16Array(1); // wraps around as the differences did
    for (let at = 0; at < about.length; at += 1) {
      sum[0] += steps.getInt16(2 * (lead * about.length + at), true);
      values[at] = sum[0] === MISSING ? NaN : sum[0] * about.step;
    }
    return values;
  });
}

/** What an answer rests on: a share of the most at each position, by occlusion and by attention. */
async function loadShade([chunk, nats, attention]) {
  const bytes = new Uint8Array(await unpack(chunk));
  const half = bytes.length / 2;
  return {
    Occlusion: { shares: bytes.subarray(0, half), note: `Darkest: the answer becomes ${nats.toFixed(2)} nats less likely when another patient's beats stand there (256 ms at a time).` },
    Attention: { shares: bytes.subarray(half), note: `Darkest: ${(100 * attention).toFixed(2)} % of the attention while the answer is said, mean over all heads. It says where the model looks, not what it uses.` },
  };
}

/** Bars over the whole height of the paper, as dark as a position's share. A code is of all leads at once. */
function shadeOf(shares, seconds, height) {
  const step = (seconds * SPEED) / shares.length;
  const bars = [];
  for (let from = 0, at = 1; at <= shares.length; at += 1) {
    if (at < shares.length && shares[at] === shares[from]) continue; // one bar, without seams
    if (shares[from] > 4) bars.push(svg("rect", { x: (PULSE + from * step).toFixed(2), y: 0, width: ((at - from) * step).toFixed(2), height, "fill-opacity": ((0.75 * shares[from]) / 255).toFixed(2) }));
    from = at;
  }
  return bars;
}

/** Draws an ECG into a new <svg>; its user units are millimetres of paper. */
function drawEcg(about, leads, layoutName, label, shares) {
  const layout = LAYOUTS[layoutName];
  const seconds = about.length / about.rate;
  const up5 = (mm) => Math.ceil(mm / 5) * 5;
  const width = up5(PULSE + seconds * SPEED + 5);
  const height = up5(layout.rows.length * layout.height + 10);
  const traces = layout.rows.map((row, number) => {
    const base = 5 + (number + 0.5) * layout.height;
    const each = seconds / row.length;
    return [
      svg("path", { class: "trace", d: `M5 ${base}h2.5v-10h5v10h2.5` }),
      row.map((lead, column) => leadOf(about, leads[LEADS.indexOf(lead)], lead, column * each, each, base, layout.height)),
    ];
  });
  const pattern = (id, step) => svg("pattern", { id, width: step, height: step, patternUnits: "userSpaceOnUse" },
    svg("path", { d: `M${step} 0H0V${step}` }));
  const paper = (name) => svg("rect", { class: "paper", width, height, fill: `url(#${name})` });
  return svg("svg", { class: "ecg", viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: "0", "aria-label": label, "data-width": width, "data-height": height },
    svg("defs", {}, pattern("grid-1", 1), pattern("grid-5", 5)), svg("g", { class: "minor" }, paper("grid-1")),
    svg("g", { class: "major" }, paper("grid-5")),
    svg("g", { class: "shade" }, shares && shadeOf(shares, seconds, height)), traces, svg("g", { class: "calipers" }));
}

function leadOf(about, values, name, start, seconds, base, room) {
  const left = PULSE + start * SPEED;
  const first = Math.round(start * about.rate);
  const last = Math.min(values.length, Math.round((start + seconds) * about.rate) + 1);
  const points = [];
  let pen = "M";
  for (let at = first; at < last; at += 1) {
    if (Number.isNaN(values[at])) { pen = "M"; continue; }
    points.push(`${pen}${(PULSE + (at / about.rate) * SPEED).toFixed(2)} ${(base - values[at] * GAIN).toFixed(2)}`);
    pen = "L";
  }
  return [
    start > 0 && svg("path", { class: "trace", d: `M${left} ${base - 6}v3` }),
    svg("path", { class: "trace", "data-lead": name, d: points.join("") }),
    svg("text", { x: left + 1.2, y: base - room * 0.32, class: "lead" }, name),
  ];
}
