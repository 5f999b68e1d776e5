// Zoom, pan and calipers over an ECG: with a mouse, with fingers, with keys.

class EcgView {
  constructor(box, about, leads, label, shade) {
    Object.assign(this, { box, about, leads, label, shade, shading: "", measuring: false, pointers: new Map() });
    this.layout = box.clientWidth < 500 ? "6 × 2" : "3 × 4";
    this.reading = el("output", { class: "reading" });
    this.buttons = el("div", { class: "ecg-tools", role: "toolbar", "aria-label": "ECG" });
    this.draw();
    new ResizeObserver(() => this.scale()).observe(box);
  }

  draw() {
    this.drawing = drawEcg(this.about, this.leads, this.layout, this.label, this.shading && this.shade[this.shading].shares);
    this.width = Number(this.drawing.dataset.width);
    this.height = Number(this.drawing.dataset.height);
    this.view = [0, 0, this.width, this.height];
    const on = (name, handler) => this.drawing.addEventListener(name, handler);
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) on(name, (event) => this.pointers.delete(event.pointerId));
    on("wheel", (event) => this.wheel(event));
    on("keydown", (event) => this.key(event));
    const tool = (text, title, act, pressed) => el("button", { type: "button", title, "aria-label": title, "aria-pressed": pressed === undefined ? null : String(pressed), click: act }, text);
    put(this.buttons, ...Object.keys(LAYOUTS).map((name) => tool(name, `${name} leads`, () => { this.layout = name; this.draw(); }, name === this.layout)),
      tool("+", "Zoom in (+)", () => this.zoom(1.5)), tool("−", "Zoom out (-)", () => this.zoom(1 / 1.5)), tool("1:1", "Whole ECG (0)", () => this.reset()),
      tool("Calipers", "Calipers (c)", () => this.measure(!this.measuring), this.measuring),
      ...Object.keys(this.shade || {}).map((name) => tool(name, `Shade by ${name.toLowerCase()}`, () => { this.shading = this.shading === name ? "" : name; this.draw(); }, name === this.shading)),
      this.reading);
    put(this.box, this.buttons, this.drawing, this.shading && el("p", { class: "note shade-note" }, this.shade[this.shading].note),
      el("p", { class: "note" }, `25 mm/s, 10 mm/mV, shown at ${this.about.rate} Hz. Drag to pan, Ctrl and wheel or two fingers to zoom.`));
    this.show();
  }

  show() {
    this.drawing.setAttribute("viewBox", this.view.map((value) => value.toFixed(3)).join(" "));
    this.drawing.classList.toggle("moved", this.view[2] < this.width - 0.01 || this.measuring);
    this.scale();
  }

  /** Fine lines are left out where they would run into each other, and names stay legible. */
  scale() {
    const pixels = (this.drawing.clientWidth || this.box.clientWidth || 800) / this.view[2]; // per millimetre
    this.drawing.classList.toggle("coarse", pixels < 2.4);
    this.drawing.style.fontSize = `${Math.max(3.6, 11 / pixels).toFixed(2)}px`;
  }

  point(event) {
    const box = this.drawing.getBoundingClientRect();
    return [this.view[0] + ((event.clientX - box.left) / box.width) * this.view[2], this.view[1] + ((event.clientY - box.top) / box.height) * this.view[3]];
  }

  down(event) {
    this.drawing.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    this.from = this.point(event);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const spread = () => { const [p, q] = [...this.pointers.values()]; return Math.hypot(p[0] - q[0], p[1] - q[1]); };
    if (this.pointers.size === 2) {
      const old = spread();
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      this.zoom(spread() / Math.max(old, 1), this.point(event));
      return;
    }
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.measuring) this.span(this.from, this.point(event));
    else {
      const box = this.drawing.getBoundingClientRect();
      this.pan(((before[0] - event.clientX) / box.width) * this.view[2], ((before[1] - event.clientY) / box.height) * this.view[3]);
    }
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / 300), this.point(event));
  }

  pan(x, y) {
    const hold = (value, size, whole) => Math.min(Math.max(value, 0), whole - size);
    this.view[0] = hold(this.view[0] + x, this.view[2], this.width);
    this.view[1] = hold(this.view[1] + y, this.view[3], this.height);
    this.show();
  }

  zoom(factor, about = [this.view[0] + this.view[2] / 2, this.view[1] + this.view[3] / 2]) {
    const wide = Math.min(this.width, Math.max(20, this.view[2] / factor));
    const ratio = wide / this.view[2];
    this.view = [about[0] - (about[0] - this.view[0]) * ratio, about[1] - (about[1] - this.view[1]) * ratio, wide, this.view[3] * ratio];
    this.pan(0, 0);
  }

  reset() {
    this.view = [0, 0, this.width, this.height];
    this.show();
  }

  measure(on) {
    this.measuring = on;
    this.buttons.querySelector("[aria-label^=Calipers]").setAttribute("aria-pressed", String(on));
    this.reading.textContent = on ? "Drag from one point to another" : "";
    if (!on) put(this.drawing.querySelector(".calipers"));
    this.show();
  }

  /** Calipers between two points of the paper. */
  span([x1, y1], [x2, y2]) {
    const [low, high] = [Math.min(x1, x2), Math.max(x1, x2)];
    put(this.drawing.querySelector(".calipers"), svg("rect", { x: low, y: 0, width: high - low, height: this.height }),
      svg("path", { d: `M${x1} 0V${this.height}M${x2} 0V${this.height}M${low} ${y1}H${high}M${low} ${y2}H${high}` }));
    const time = ((high - low) / SPEED) * 1000;
    const rate = time > 150 ? `, ${Math.round(60000 / time)}/min` : "";
    this.reading.textContent = `${Math.round(time)} ms${rate}, ${((y1 - y2) / GAIN).toFixed(2)} mV`;
  }

  key(event) {
    const step = this.view[2] / 10;
    const acts = { ArrowLeft: () => this.pan(-step, 0), ArrowRight: () => this.pan(step, 0), ArrowUp: () => this.pan(0, -step), ArrowDown: () => this.pan(0, step) };
    if (!acts[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  }
}
