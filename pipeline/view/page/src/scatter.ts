// A scatter plot of an embedding: a point for each image, coloured, linked with the filter. A dragged rectangle filters by the region.
import { embedding, embeddingMatches, type Points, type Store } from "./api";
import type { Colours } from "./colours";
import { clipped, counted, el, figure, foreign } from "./dom";
import type { State } from "./state";

const PALETTE = ["#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#d4b23a", "#b07aa1", "#ff9da7", "#9c755f", "#6f7fd1"];
const GREY = "#8b8a90";
const OUTCOMES: [string, string][] = [["correct", "#59a14f"], ["correct, off-object", "#f28e2b"], ["wrong", "#e15759"], ["not judged", GREY]];
const MARGIN = 10; // pixels
const REACH = 9; // pixels from the pointer to the point that is meant
const TITLES: Record<string, string> = {
  "map-pca": "maps, principal components", "map-tsne": "maps, t-SNE", "features-pca": "image features, principal components", "features-tsne": "image features, t-SNE",
};

type Box = [number, number, number, number]; // left, right, lower, upper, in the unit square

export class Scatter {
  private points: Points | null = null;
  private matches: Uint8Array | null = null;
  private colour: string[] = [];
  private version = 0;
  private drag: { from: [number, number]; to: [number, number] } | null = null;
  private canvas = el("canvas", { className: "points", role: "img" });
  private legend = el("p", { className: "legend" });
  private said = el("p", { className: "small", role: "status" });
  private tip = el("div", { className: "tip", hidden: true });
  private kind: HTMLSelectElement;
  private by: HTMLSelectElement;

  constructor(private root: HTMLElement, private store: Store, private state: State, private colours: Colours, private actions: { open: (n: number) => void; fail: (error: Error) => void }) {
    this.kind = el("select", { "aria-label": "Embedding", onchange: () => void this.load() }, ...store.embeddings.map((kind) => el("option", { value: kind }, TITLES[kind] ?? kind)));
    this.by = el("select", { "aria-label": "Colour of the points", onchange: () => { this.paint(); this.draw(); } },
      el("option", { value: "label" }, "label"), el("option", { value: "outcome" }, "outcome"), el("option", { value: "confidence" }, "confidence"));
    root.append(el("div", { className: "scatter-bar" }, el("label", {}, "Embedding ", this.kind), el("label", {}, "Colour ", this.by), this.said),
      el("div", { className: "plane" }, this.canvas, this.tip), this.legend);
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture(event.pointerId); this.drag = { from: this.at(event), to: this.at(event) }; this.tip.hidden = true; });
    this.canvas.addEventListener("pointermove", (event) => this.moved(event));
    this.canvas.addEventListener("pointerup", (event) => this.released(event));
    this.canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
  }

  get isOpen(): boolean { return !this.root.hidden; }

  async toggle(open = !this.isOpen): Promise<void> {
    this.root.hidden = !open || !this.store.embeddings.length;
    if (open && !this.points) await this.load();
  }

  // What the address chose: the plot in which a region lies.
  async follow(): Promise<void> {
    const { region } = this.state.view.filter;
    const kind = region.slice(0, region.lastIndexOf(":"));
    if (region && this.store.embeddings.includes(kind) && this.kind.value !== kind) { this.kind.value = kind; this.points = null; }
    if (region && !this.isOpen) { await this.toggle(true); return; }
    if (this.isOpen) { if (this.points) await this.refresh(); else await this.load(); }
  }

  private async load(): Promise<void> {
    const version = ++this.version, kind = this.kind.value;
    this.said.textContent = kind.endsWith("tsne") ? "computing, some seconds …" : "…";
    try {
      const points = await embedding(kind);
      if (version !== this.version) return;
      this.points = points;
      const count = points.n.length, all = this.store.images;
      const held = points.explained === null ? "" : `, ${(100 * points.explained).toFixed(0)} % of the variance`;
      this.said.textContent = `${count < all ? `${count.toLocaleString("en")} of ${counted(all, "image")}` : counted(count, "image")}${held}. Drag to choose a region, click a point to open it.`;
      this.canvas.setAttribute("aria-label", `Scatter plot of ${counted(count, "image")}: ${TITLES[kind] ?? kind}`);
      this.paint();
      await this.refresh();
    } catch (error) { if (version === this.version) { this.said.textContent = (error as Error).message; this.points = null; this.draw(); } }
  }

  // Which points match the filter, whatever region is chosen in this plot.
  private async refresh(): Promise<void> {
    const version = ++this.version;
    try {
      const matches = await embeddingMatches(this.kind.value, this.state.view.filter);
      if (version === this.version) { this.matches = matches; this.draw(); }
    } catch (error) { if (version === this.version) this.actions.fail(error as Error); }
  }

  private className(index: number): string { return this.store.classes[index] ?? `class ${index}`; }

  private paint(): void {
    const points = this.points;
    if (!points) return;
    const entries: [string, string][] = [];
    if (this.by.value === "label") {
      const counts = new Map<number, number>();
      for (const label of points.label) counts.set(label, (counts.get(label) ?? 0) + 1);
      const first = [...counts].filter(([label]) => label >= 0).sort((a, b) => b[1] - a[1]).slice(0, PALETTE.length).map(([label]) => label).sort((a, b) => a - b);
      const colourOf = new Map(first.map((label, at) => [label, PALETTE[at]]));
      this.colour = Array.from(points.label, (label) => colourOf.get(label) ?? GREY);
      entries.push(...first.map((label, at) => [this.className(label), PALETTE[at]] as [string, string]));
      if (counts.size > first.length) entries.push(["others", GREY]);
    } else if (this.by.value === "outcome") {
      this.colour = Array.from(points.correct, (correct, at) => OUTCOMES[correct < 0 ? 3 : !correct ? 2 : points.off_object[at] ? 1 : 0][1]);
      entries.push(...OUTCOMES);
    } else {
      const ramp = (value: number) => { const at = 3 * Math.round(255 * Math.min(Math.max(value, 0), 1)); return `rgb(${this.colours.table.slice(at, at + 3).join(",")})`; };
      this.colour = Array.from(points.confidence, (value) => (Number.isNaN(value) ? GREY : ramp(value)));
      for (const value of [0, 0.25, 0.5, 0.75, 1]) entries.push([figure(value), ramp(value)]);
    }
    this.legend.replaceChildren(...entries.map(([name, colour]) => {
      const mark = el("span", { className: "mark" });
      mark.style.background = colour;
      return el("span", { className: "entry" }, mark, foreign(name, 24));
    }));
  }

  private get side(): number { return Math.max(1, Math.min(this.canvas.clientWidth, this.canvas.clientHeight) - 2 * MARGIN); }
  private place(x: number, y: number): [number, number] {
    const left = (this.canvas.clientWidth - this.side) / 2, top = (this.canvas.clientHeight - this.side) / 2;
    return [left + x * this.side, top + (1 - y) * this.side];
  }
  private inverse([left, top]: [number, number]): [number, number] {
    return [(left - (this.canvas.clientWidth - this.side) / 2) / this.side, 1 - (top - (this.canvas.clientHeight - this.side) / 2) / this.side];
  }
  private at(event: PointerEvent): [number, number] { return [event.offsetX, event.offsetY]; }

  draw(): void {
    const dense = devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    this.canvas.width = Math.round(width * dense);
    this.canvas.height = Math.round(height * dense);
    const context = this.canvas.getContext("2d")!, points = this.points;
    context.scale(dense, dense);
    if (!points) return;
    const size = points.n.length > 5000 ? 2 : points.n.length > 1000 ? 3 : 5;
    const matching = (at: number) => !this.matches || this.matches[at] === 1;
    context.globalAlpha = 0.22;
    context.fillStyle = GREY;
    for (let at = 0; at < points.n.length; at++) if (!matching(at)) { const [x, y] = this.place(points.x[at], points.y[at]); context.fillRect(x - size / 2, y - size / 2, size, size); }
    context.globalAlpha = 0.85;
    for (let at = 0; at < points.n.length; at++) {
      if (!matching(at)) continue;
      const [x, y] = this.place(points.x[at], points.y[at]);
      context.fillStyle = this.colour[at];
      context.fillRect(x - size / 2, y - size / 2, size, size);
    }
    context.globalAlpha = 1;
    const box = this.drag ? this.dragged() : this.chosen();
    if (!box) return;
    const [left, bottom] = this.place(box[0], box[2]), [right, top] = this.place(box[1], box[3]);
    const ink = getComputedStyle(this.canvas).getPropertyValue("--accent") || "#7a2a8c";
    context.strokeStyle = ink.startsWith("light-dark") ? getComputedStyle(this.canvas).color : ink;
    context.lineWidth = 1.5;
    context.setLineDash([5, 3]);
    context.strokeRect(left, top, right - left, bottom - top);
    context.setLineDash([]);
  }

  private chosen(): Box | null {
    const { region } = this.state.view.filter, cut = region.lastIndexOf(":");
    if (region.slice(0, cut) !== this.kind.value) return null;
    const edges = region.slice(cut + 1).split(",").map(Number);
    return edges.length === 4 && edges.every(Number.isFinite) ? (edges as Box) : null;
  }

  private dragged(): Box {
    const [a, b] = [this.inverse(this.drag!.from), this.inverse(this.drag!.to)];
    return [Math.min(a[0], b[0]), Math.max(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[1], b[1])];
  }

  private get isDrag(): boolean { return this.drag !== null && Math.hypot(this.drag.to[0] - this.drag.from[0], this.drag.to[1] - this.drag.from[1]) > 5; }

  private moved(event: PointerEvent): void {
    if (this.drag) { this.drag.to = this.at(event); if (this.isDrag) this.draw(); return; }
    const found = this.nearest(this.at(event));
    this.tip.hidden = found < 0;
    if (found < 0 || Number(this.tip.dataset.at) === found) return;
    this.tip.dataset.at = String(found);
    const points = this.points!, [x, y] = this.place(points.x[found], points.y[found]);
    const image = el("img", { src: `api/thumbnail/${points.n[found]}`, alt: "" });
    image.addEventListener("error", () => image.remove());
    this.tip.replaceChildren(image, points.label[found] < 0 ? "" : foreign(this.className(points.label[found]), 30));
    this.tip.style.translate = `${Math.min(x + 12, this.canvas.clientWidth - 110)}px ${Math.max(0, Math.min(y - 40, this.canvas.clientHeight - 120))}px`;
  }

  private released(event: PointerEvent): void {
    if (!this.drag) return;
    this.drag.to = this.at(event);
    if (this.isDrag) this.state.filter({ region: `${this.kind.value}:${this.dragged().map((edge) => String(Number(edge.toFixed(4)))).join(",")}` });
    else {
      const found = this.nearest(this.drag.from);
      if (found >= 0) this.actions.open(this.points!.n[found]); else if (this.state.view.filter.region) this.state.filter({ region: "" });
    }
    this.drag = null;
    this.draw();
  }

  // The point under the pointer; those that match go before others.
  private nearest([left, top]: [number, number]): number {
    const points = this.points;
    let best = -1, least = REACH * REACH;
    for (let at = 0; points && at < points.n.length; at++) {
      if (this.matches && !this.matches[at]) continue;
      const [x, y] = this.place(points.x[at], points.y[at]);
      const far = (x - left) ** 2 + (y - top) ** 2;
      if (far < least) { least = far; best = at; }
    }
    return best;
  }
}

export const regionTitle = (region: string): string => `region in ${clipped(TITLES[region.slice(0, region.lastIndexOf(":"))] ?? "the scatter plot", 40)}`;
