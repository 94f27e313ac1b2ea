// One histogram: all rows behind, the rows that match in front, and a brush that chooses a range of bins.
import type { Column } from "./api";
import { counted, el, figure, svg } from "./dom";
import type { Range } from "./state";

const WIDTH = 260, HEIGHT = 64, TOP = 12; // room for the count of the tallest bar

export class Histogram {
  readonly root: HTMLElement;
  private drawing: SVGElement;
  private brush: SVGElement;
  private low: HTMLInputElement;
  private high: HTMLInputElement;
  private counts: number[] = [];
  private range: Range | null = null;

  constructor(readonly column: Column, private whole: number[], private choose: (range: Range | null, gesture: string) => void, close: () => void) {
    this.drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + 16}`, class: "histogram", role: "group", "aria-roledescription": "histogram", tabindex: 0 });
    this.brush = svg("rect", { class: "brush", y: 0, height: HEIGHT, width: 0 });
    const number = (name: string) => el("input", { type: "number", step: "any", "aria-label": `${column.title}: ${name}`, placeholder: name, onchange: () => this.typed() });
    this.low = number("from");
    this.high = number("below");
    this.root = el("section", { className: "facet", title: column.text },
      el("h3", {}, column.title, el("button", { type: "button", className: "quiet", "aria-label": `Close the histogram of ${column.title}`, onclick: close }, "×")),
      this.drawing as unknown as HTMLElement,
      el("div", { className: "ends" }, this.low, el("code", {}, column.name), this.high));
    this.drawing.addEventListener("pointerdown", (event) => this.drag(event as PointerEvent));
    this.drawing.addEventListener("keydown", (event) => this.key(event as KeyboardEvent));
    this.draw();
  }

  update(counts: number[], range: Range | null): void {
    this.counts = counts;
    this.range = range;
    this.draw();
  }

  private edge(bin: number): number {
    const { low, high, bins } = this.column;
    return low + (bin * (high - low)) / bins;
  }

  private draw(): void {
    const { bins, low, high, title } = this.column;
    const most = Math.max(1, ...this.whole);
    const step = WIDTH / bins;
    const bars = (counts: number[], className: string) => counts.map((count, bin) => {
      const tall = count ? Math.max(1.5, (count / most) * (HEIGHT - TOP)) : 0;
      const bar = svg("rect", { class: className, x: (bin * step + 0.5).toFixed(1), y: (HEIGHT - tall).toFixed(1), width: (step - 1).toFixed(1), height: tall.toFixed(1) });
      bar.append(svg("title"));
      bar.firstElementChild!.textContent = `${figure(this.edge(bin))} to ${figure(this.edge(bin + 1))}: ${counted(count, "row")}`;
      return bar;
    });
    const text = (x: number, anchor: string, value: number) => {
      const label = svg("text", { x, y: HEIGHT + 13, "text-anchor": anchor, class: "tick" });
      label.textContent = figure(value);
      return label;
    };
    const whole = bins <= 25 && Math.abs(((low * 2) % 2)) === 1;
    this.drawing.replaceChildren(
      ...bars(this.whole, "behind"), ...bars(this.counts, "front"),
      svg("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }), this.brush,
      text(0, "start", whole ? low + 0.5 : low), text(WIDTH, "end", whole ? high - 0.5 : high), this.most(most));
    const total = this.counts.reduce((sum, count) => sum + count, 0);
    this.drawing.setAttribute("aria-label", `Histogram of ${title}: ${counted(total, "row")} from ${figure(low)} to ${figure(high)}. Arrow keys move a range, with Shift they widen or narrow it, Delete removes it.`);
    const from = this.range?.[0] ?? low, to = this.range?.[1] ?? high;
    const x = (value: number) => Math.min(Math.max(((value - low) / (high - low)) * WIDTH, 0), WIDTH);
    this.brush.setAttribute("x", String(x(from)));
    this.brush.setAttribute("width", this.range ? String(Math.max(1, x(to) - x(from))) : "0");
    this.low.value = plain(this.range?.[0]);
    this.high.value = plain(this.range?.[1]);
  }

  // How many rows the tallest bar stands for.
  private most(count: number): SVGElement {
    const label = svg("text", { x: WIDTH, y: 9, "text-anchor": "end", class: "tick most" });
    label.textContent = count.toLocaleString("en");
    return label;
  }

  private chooseBins(first: number, end: number, gesture: string): void {
    // values beyond the axis are counted in the outermost bins, so a brush that reaches them has an open end
    this.show([first === 0 ? null : this.edge(first), end === this.column.bins ? null : this.edge(end)], gesture);
  }

  // The brush at once, what it leaves when it is counted.
  private show(range: Range | null, gesture: string): void {
    this.range = range;
    this.draw();
    this.choose(range, gesture);
  }

  private key(event: KeyboardEvent): void {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], { bins, low, high } = this.column;
    if (event.key === "Delete" || event.key === "Backspace" || (event.key === "Escape" && this.range)) this.show(null, "");
    else if (by === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    else {
      const place = (value: number | null, open: number) => (value === null ? open : Math.min(Math.max(Math.round(((value - low) / (high - low)) * bins), 0), bins));
      let [first, end] = this.range ? [place(this.range[0], 0), place(this.range[1], bins)] : by > 0 ? [-1, 0] : [bins, bins + 1];
      if (!event.shiftKey) [first, end] = first + by < 0 || end + by > bins ? [first, end] : [first + by, end + by];
      else end = Math.min(Math.max(end + by, first + 1), bins);
      if (first >= 0 && end <= bins) this.chooseBins(first, end, `keys ${this.column.name}`);
    }
    event.preventDefault();
    event.stopPropagation();
  }

  private bin(event: PointerEvent): number {
    const box = this.drawing.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    return Math.min(Math.max(Math.floor(share * this.column.bins), 0), this.column.bins - 1);
  }

  private drag(event: PointerEvent): void {
    event.preventDefault();
    const start = this.bin(event);
    const gesture = `drag ${this.column.name} ${event.timeStamp}`;
    let moved = false, last = -1;
    const move = (next: PointerEvent) => {
      const now = this.bin(next);
      if (now === last) return;
      moved ||= now !== start;
      last = now;
      const first = Math.min(start, now), end = Math.max(start, now) + 1;
      this.chooseBins(first, end, gesture);
    };
    const wasInside = this.range !== null;
    const up = () => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", up);
      if (!moved && wasInside) this.show(null, ""); // a click takes the brush away
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", up);
    if (!wasInside) move(event);
  }

  private typed(): void {
    const value = (input: HTMLInputElement) => (input.value.trim() === "" || !Number.isFinite(Number(input.value)) ? null : Number(input.value));
    const ends: Range = [value(this.low), value(this.high)];
    this.choose(ends[0] === null && ends[1] === null ? null : ends, "");
  }
}

const plain = (value: number | null | undefined): string => (value === null || value === undefined ? "" : String(Number(value.toPrecision(6))));
