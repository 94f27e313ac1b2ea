// The images that match, any number of them: only what is visible exists. Where all rows would be taller than a browser
// can scroll, the scroll bar stands for the whole list in proportion.
import { maps, post, postArrow, truthOf, type NoTruth, type Row, type Store, type Truth } from "./api";
import { byId, clipped, el, foreign, lines } from "./dom";
import { drawOutline, drawTruth, type Colours } from "./colours";
import type { State } from "./state";

const CHUNK = 120;
const KEPT_CHUNKS = 40;
const KEPT_MAPS = 6000;
const TALLEST = 15_000_000; // pixels; browsers end between 17 and 33 million
const CAPTION = 40;
const GAP = 8;
const TILE = 112; // pixels of a map in a tile
const TRUTHS_AT_ONCE = 3;
const FEW_IMAGES = 20_000; // up to which the marked objects are asked for without an image having been opened: the data set is then listed

export class Grid {
  total = 0;
  current = -1; // position in the order
  private columnsBefore = 1; // at the last change of size
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
  private moves = 0;
  private empty = el("p", { className: "empty", role: "status", hidden: true });
  private truths = new Map<number, Truth | null>(); // null: asked for, or nothing marked
  private waiting: number[] = [];
  private asking = 0;
  private hasTruth: boolean;

  constructor(private root: HTMLElement, private store: Store, private state: State, private colours: Colours, private chosen: (row: Row, open: boolean) => void, private selection: () => void, private options: { outline: () => boolean; truth: () => boolean }) {
    this.hasTruth = store.images <= FEW_IMAGES;
    root.append(this.sizer, this.layer, this.empty);
    root.addEventListener("scroll", () => this.schedule());
    new ResizeObserver(() => {
      // an opened image makes the grid narrower: the cell that is chosen stays in view
      const before = this.columnsBefore, columns = this.columns;
      this.columnsBefore = columns;
      if (this.current >= 0 && before !== columns) {
        const top = Math.floor(this.current / before) * this.step - this.root.scrollTop * this.scale;
        if (top > -this.step && top < this.root.clientHeight) this.reveal(this.current);
      }
      this.draw();
    }).observe(root);
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
      this.say(total ? "" : "No image matches the filter.");
      this.chunks.set(chunk, rows);
      while (this.chunks.size > KEPT_CHUNKS) this.chunks.delete(this.chunks.keys().next().value!);
      this.schedule();
    }).catch((error: Error) => {
      if (version !== this.version) return;
      this.chunks.clear();
      this.total = 0;
      this.say(error.message);
      this.root.dispatchEvent(new CustomEvent("failed", { detail: error.message }));
    });
    this.chunks.set(chunk, asked);
    return asked;
  }

  private say(text: string): void {
    this.empty.hidden = !text;
    this.empty.textContent = lines(text);
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
    const map = this.mapOf.get(row.n), canvas = cell.querySelector<HTMLCanvasElement>("canvas.map");
    if (map && canvas) this.colours.draw(canvas, map, this.shape[0], this.shape[1], Math.max(1, TILE / Math.max(...this.shape)));
    this.mark(cell, row);
  }

  // The outlines that are switched on, on a picture of their own, which the opacity of the map leaves alone.
  private mark(cell: HTMLElement, row: Row): void {
    const canvas = cell.querySelector<HTMLCanvasElement>("canvas.marks")!, map = this.mapOf.get(row.n), outline = this.options.outline() && map;
    if (this.options.truth() && row.status === "ok") this.askTruth(row.n);
    const truth = this.options.truth() ? this.truths.get(row.n) : null;
    canvas.hidden = !outline && !truth;
    if (canvas.hidden) return;
    canvas.width = canvas.height = 2 * TILE; // finer than the map, for thin lines
    const context = canvas.getContext("2d")!;
    if (outline) drawOutline(context, map, this.shape[0], this.shape[1]);
    if (truth) drawTruth(context, truth.path, truth.height, truth.width);
  }

  // Outlines anew, after one was switched on or off.
  marks(): void {
    for (const [position, cell] of this.cells) { const row = this.row(position); if (row) this.mark(cell, row); }
  }

  // What is known of an image's marked object; from then on it is asked for in tiles, too.
  marked(n: number, truth: Truth | NoTruth | null): void {
    if (truth?.everywhere) { this.hasTruth = false; this.waiting = []; return; }
    const first = !this.hasTruth;
    this.hasTruth = true;
    this.truths.set(n, truth && truth.path !== undefined ? truth : null);
    while (this.truths.size > KEPT_MAPS) this.truths.delete(this.truths.keys().next().value!);
    if (first) { this.marks(); return; }
    for (const [position, cell] of this.cells) { const row = this.row(position); if (row?.n === n) this.mark(cell, row); }
  }

  private askTruth(n: number): void {
    if (!this.hasTruth || this.truths.has(n) || this.waiting.includes(n)) return;
    this.waiting.push(n);
    this.nextTruth();
  }

  private nextTruth(): void {
    while (this.asking < TRUTHS_AT_ONCE && this.waiting.length) {
      const n = this.waiting.pop()!; // the newest first: what was scrolled past can wait
      this.asking += 1;
      this.truths.set(n, null);
      this.waiting = this.waiting.slice(-200);
      truthOf(n).catch(() => null).then((truth) => { this.asking -= 1; this.marked(n, truth); this.nextTruth(); });
    }
  }

  private cell(row: Row, position: number): HTMLElement {
    const name = (index: number | null) => (index === null ? "no prediction" : (this.store.classes[index] ?? `class ${index}`));
    const explained = row.target ?? row.prediction;
    const confidence = row[this.store.confidence] as number | null;
    const image = el("img", { src: `api/thumbnail/${row.n}`, alt: "", loading: "eager", draggable: false });
    const verdict = row.correct === null ? "" : row.off_object ? "off-object" : row.correct ? "correct" : "wrong";
    const cell = el("div", { className: `cell ${verdict}`, role: "gridcell", "data-position": String(position), title: clipped(row.id, 200) },
      el("span", { className: "picture" }, image, el("canvas", { className: "map", "aria-hidden": "true" }), el("canvas", { className: "marks", "aria-hidden": "true", hidden: true }), row.status === "ok" ? null : el("span", { className: "status" }, row.status)),
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
    this.moves += 1;
    this.current = position;
    this.anchor = position;
    const row = await this.rowAt(position);
    this.reveal(position);
    this.draw();
    if (row && this.current === position) this.chosen(row, open);
  }

  // Go to an image that was not chosen in the grid. False where it is not among those that match.
  async find(n: number): Promise<boolean> {
    if (this.row(this.current)?.n === n) return true;
    const version = this.version, moves = ++this.moves, { filter, sort, descending } = this.state.view;
    const { position } = await post<{ position: number | null }>("position", { filter, sort, descending, session: this.session, row: n });
    if (position === null || version !== this.version || moves !== this.moves) return position !== null;
    this.current = this.anchor = position;
    await this.rowAt(position);
    this.reveal(position);
    this.draw();
    return true;
  }

  private reveal(position: number): void {
    const { columns, step, scale } = this;
    this.sizer.style.height = `${Math.min(this.height, TALLEST)}px`; // else the list cannot be scrolled that far
    const top = Math.floor(position / columns) * step, view = this.root.clientHeight, offset = this.root.scrollTop * scale;
    if (top < offset) this.root.scrollTop = top / scale;
    else if (top + step > offset + view) this.root.scrollTop = (top + step - view + GAP) / scale;
  }

  get perLine(): number { return this.columns; }
}

export const gridOf = (): HTMLElement => byId("grid");
