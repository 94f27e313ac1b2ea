// The images that match, any number of them: only what is visible exists. Where all rows would be taller than a browser
// can scroll, the scroll bar stands for the whole list in proportion.
import { maps, postArrow, type Row, type Store } from "./api";
import { byId, clipped, el, foreign } from "./dom";
import type { Colours } from "./colours";
import type { State } from "./state";

const CHUNK = 120;
const KEPT_CHUNKS = 40;
const KEPT_MAPS = 6000;
const TALLEST = 15_000_000; // pixels; browsers end between 17 and 33 million
const CAPTION = 40;
const GAP = 8;

export class Grid {
  total = 0;
  current = -1; // position in the order
  readonly selected = new Set<number>(); // row numbers
  private sizer = el("div", { className: "sizer" });
  private layer = el("div", { className: "layer" });
  private chunks = new Map<number, Row[] | Promise<void>>();
  private mapOf = new Map<number, Uint8Array | null>();
  private shape: [number, number] = [0, 0];
  private cells = new Map<number, HTMLElement>();
  private version = 0;
  private session = "";
  private pending = 0;
  private anchor = -1;

  constructor(private root: HTMLElement, private store: Store, private state: State, private colours: Colours, private chosen: (row: Row, open: boolean) => void, private selection: () => void) {
    root.append(this.sizer, this.layer);
    root.addEventListener("scroll", () => this.schedule());
    new ResizeObserver(() => this.draw()).observe(root);
    root.addEventListener("click", (event) => this.clicked(event));
    root.addEventListener("error", (event) => (event.target as HTMLElement).closest(".picture")?.classList.add("gone"), true);
  }

  private get columns(): number { return Math.max(1, Math.floor((this.root.clientWidth - GAP) / (this.side + GAP))); }
  private get side(): number { return this.root.clientWidth < 600 ? Math.floor((this.root.clientWidth - GAP * 4) / 3) : 148; }
  private get step(): number { return this.side + CAPTION + GAP; }
  private get height(): number { return Math.ceil(this.total / this.columns) * this.step + GAP; }
  // pixels of the list that one pixel of the scroll bar stands for
  private get scale(): number {
    const view = this.root.clientHeight;
    return this.height <= TALLEST ? 1 : (this.height - view) / (TALLEST - view);
  }

  // The same filter in a new order or a new filter: everything is asked for again.
  async reset(keep = false): Promise<void> {
    this.version += 1;
    const version = this.version;
    // the server keeps the order under this name, so that deciding about images does not move those behind them
    this.session = crypto.getRandomValues(new Uint32Array(3)).join("-");
    this.chunks.clear();
    if (!keep) { this.root.scrollTop = 0; this.current = -1; this.anchor = -1; }
    await this.load(Math.floor(Math.max(0, this.current) / CHUNK));
    if (version !== this.version) return;
    for (const cell of this.cells.values()) cell.remove();
    this.cells.clear();
    this.draw();
  }

  private schedule(): void {
    cancelAnimationFrame(this.pending);
    this.pending = requestAnimationFrame(() => this.draw());
  }

  private load(chunk: number): Promise<void> {
    const there = this.chunks.get(chunk);
    if (there instanceof Promise) return there;
    if (there) return Promise.resolve();
    const version = this.version, { filter, sort, descending } = this.state.view;
    const asked = postArrow("rows", { filter, sort, descending, session: this.session, start: chunk * CHUNK, count: CHUNK }).then(({ rows, total }) => {
      if (version !== this.version) return;
      this.total = total;
      this.chunks.set(chunk, rows);
      while (this.chunks.size > KEPT_CHUNKS) this.chunks.delete(this.chunks.keys().next().value!);
      this.schedule();
    }).catch((error: Error) => {
      if (version !== this.version) return;
      this.chunks.delete(chunk);
      this.root.dispatchEvent(new CustomEvent("failed", { detail: error.message }));
    });
    this.chunks.set(chunk, asked);
    return asked;
  }

  row(position: number): Row | null {
    const chunk = this.chunks.get(Math.floor(position / CHUNK));
    return Array.isArray(chunk) ? (chunk[position % CHUNK] ?? null) : null;
  }

  async rowAt(position: number): Promise<Row | null> {
    await this.load(Math.floor(position / CHUNK));
    return this.row(position);
  }

  draw(): void {
    const { columns, side, step, scale } = this;
    const view = this.root.clientHeight;
    this.sizer.style.height = `${Math.min(this.height, TALLEST)}px`;
    const offset = this.root.scrollTop * scale; // of the whole list
    const first = Math.max(0, Math.floor(offset / step) - 1) * columns;
    const last = Math.min(this.total, (Math.ceil((offset + view) / step) + 1) * columns);
    for (const [position, cell] of this.cells) {
      if (position < first || position >= last) { cell.remove(); this.cells.delete(position); }
    }
    const missing: number[] = [];
    for (let position = first; position < last; position++) {
      const row = this.row(position);
      if (!row) { void this.load(Math.floor(position / CHUNK)); continue; }
      let cell = this.cells.get(position);
      if (!cell) {
        cell = this.cell(row, position);
        this.cells.set(position, cell);
        this.layer.append(cell);
      }
      const top = Math.floor(position / columns) * step - offset + this.root.scrollTop + GAP;
      cell.style.transform = `translate(${GAP + (position % columns) * (side + GAP)}px, ${top}px)`;
      cell.style.width = `${side}px`;
      cell.style.height = `${side + CAPTION}px`;
      cell.classList.toggle("current", position === this.current);
      cell.classList.toggle("selected", this.selected.has(row.n));
      if (this.store.map && !this.mapOf.has(row.n) && row.status === "ok") missing.push(row.n);
    }
    if (missing.length) this.fetchMaps(missing);
  }

  private fetchMaps(rows: number[]): void {
    for (const n of rows) this.mapOf.set(n, null); // asked for
    maps(rows.slice(0, 600)).then(({ height, width, maps: found }) => {
      this.shape = [height, width];
      found.forEach((map, at) => this.mapOf.set(rows[at], map));
      for (const [position, cell] of this.cells) {
        const row = this.row(position);
        if (row && rows.includes(row.n)) this.paint(cell, row);
      }
      while (this.mapOf.size > KEPT_MAPS) this.mapOf.delete(this.mapOf.keys().next().value!);
    }).catch((error: Error) => {
      for (const n of rows) this.mapOf.delete(n);
      this.root.dispatchEvent(new CustomEvent("failed", { detail: error.message }));
    });
  }

  private paint(cell: HTMLElement, row: Row): void {
    const map = this.mapOf.get(row.n), canvas = cell.querySelector("canvas");
    if (map && canvas) this.colours.draw(canvas, map, this.shape[0], this.shape[1], Math.max(1, 112 / Math.max(...this.shape)));
  }

  private cell(row: Row, position: number): HTMLElement {
    const name = (index: number | null) => (index === null ? "no prediction" : (this.store.classes[index] ?? `class ${index}`));
    const explained = row.target ?? row.prediction;
    const confidence = row[this.store.confidence] as number | null;
    const image = el("img", { src: `api/thumbnail/${row.n}`, alt: "", loading: "eager", draggable: false });
    const verdict = row.correct === null ? "" : row.off_object ? "off-object" : row.correct ? "correct" : "wrong";
    const cell = el("div", { className: `cell ${verdict}`, role: "gridcell", "data-position": String(position), title: clipped(row.id, 200) },
      el("span", { className: "picture" }, image, el("canvas", { "aria-hidden": "true" }), row.status === "ok" ? null : el("span", { className: "status" }, row.status)),
      row.decision ? el("span", { className: `decision ${row.decision.split(" ")[0]}` }, row.new_label ? el("span", {}, "→ ", foreign(row.new_label, 18)) : row.decision) : null,
      el("span", { className: "line" }, foreign(name(explained), 40), confidence === null ? "" : ` ${(100 * confidence).toFixed(0)} %`),
      el("span", { className: "line small" }, verdict === "wrong" ? el("span", {}, "labelled ", foreign(name(row.label), 30)) : verdict === "off-object" ? "correct, off-object" : foreign(row.id, 28)));
    cell.setAttribute("aria-label", `${clipped(row.id, 80)}: ${clipped(name(explained), 40)}${verdict ? `, ${verdict}` : ""}`);
    this.paint(cell, row);
    return cell;
  }

  // Draw the cells of these images anew, because what is decided about them has changed.
  touch(ids: Set<string>, decision: string | null, label: string | null): void {
    for (const chunk of this.chunks.values()) {
      if (!Array.isArray(chunk)) continue;
      chunk.forEach((row, at) => { if (ids.has(row.id)) chunk[at] = { ...this.plain(row), decision, new_label: label }; });
    }
    for (const [position, cell] of this.cells) {
      const row = this.row(position);
      if (row && ids.has(row.id)) { cell.remove(); this.cells.delete(position); }
    }
    this.draw();
  }

  private plain(row: Row): Row { return Object.fromEntries(Object.entries(row)) as Row; }

  private clicked(event: MouseEvent): void {
    const cell = (event.target as HTMLElement).closest<HTMLElement>(".cell");
    if (!cell) return;
    const position = Number(cell.dataset.position);
    if (event.shiftKey && this.anchor >= 0) { void this.selectRange(this.anchor, position); return; }
    if (event.ctrlKey || event.metaKey) { this.toggle(position); this.anchor = position; return; }
    this.anchor = position;
    this.go(position, true);
  }

  async selectRange(from: number, to: number): Promise<void> {
    const [low, high] = [Math.min(from, to), Math.min(Math.max(from, to), Math.min(from, to) + 4999)];
    for (let chunk = Math.floor(low / CHUNK); chunk <= Math.floor(high / CHUNK); chunk++) await this.load(chunk);
    for (let position = low; position <= high; position++) {
      const row = this.row(position);
      if (row) this.selected.add(row.n);
    }
    this.draw();
    this.selection();
  }

  toggle(position: number): void {
    const row = this.row(position);
    if (!row) return;
    if (!this.selected.delete(row.n)) this.selected.add(row.n);
    this.draw();
    this.selection();
  }

  clearSelection(): void { this.selected.clear(); this.draw(); this.selection(); }

  async go(position: number, open: boolean): Promise<void> {
    if (position < 0 || position >= this.total) return;
    this.current = position;
    this.anchor = position;
    const row = await this.rowAt(position);
    this.reveal(position);
    this.draw();
    if (row && this.current === position) this.chosen(row, open);
  }

  private reveal(position: number): void {
    const { columns, step, scale } = this;
    const top = Math.floor(position / columns) * step, view = this.root.clientHeight, offset = this.root.scrollTop * scale;
    if (top < offset) this.root.scrollTop = top / scale;
    else if (top + step > offset + view) this.root.scrollTop = (top + step - view + GAP) / scale;
  }

  get perLine(): number { return this.columns; }
}

export const gridOf = (): HTMLElement => byId("grid");
