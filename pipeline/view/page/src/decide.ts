// Decisions: by key or button, for one image or all that are selected, with undo; other open pages are followed.
import { download, get, post, type Act, type Detail, type Store } from "./api";
import { chooseClass, confirmed } from "./dialogs";
import { clipped, counted, el } from "./dom";
import type { Grid } from "./grid";
import { chips } from "./facets";
import { paintMask, type MaskKind, type SentMask } from "./paint";
import type { State } from "./state";

interface Written { batch: string; count: number; version: number }
// `shown` is the image that is open, which keys decide about; `next` goes on to the next one.
interface Actions { changed: () => void; open: (n: number) => void; next: () => void; shown: () => number | null }
interface Undoable { batch: string; row: number | null }
interface Changes { version: number; changes: { id: string; decision: string | null; new_label: string | null }[] }
const POLL = 3000; // milliseconds
const KEPT = 200; // acts that a page can undo
const MEMORY = `heatlas-undo ${location.pathname}`;
export const ACTIONS: { kind: string; key: string; text: string; title: string }[] = [
  { kind: "ok", key: "k", text: "Keep", title: "Label and image are right" },
  { kind: "relabel", key: "r", text: "Relabel", title: "Another class is right" },
  { kind: "drop", key: "d", text: "Drop", title: "Leave the image out of the data set" },
  { kind: "shortcut", key: "s", text: "Shortcut", title: "The model uses something that does not belong to the class" },
  { kind: "unsure", key: "u", text: "Unsure", title: "Cannot be decided by looking" },
];

export class Decisions {
  private version = 0;
  private started = false;
  private undoable: Undoable[] = remembered(); // of this tab, also after it was loaded anew
  private running: Promise<void> = Promise.resolve();

  constructor(private store: Store, private state: State, private grid: Grid, private say: (text: string, failed?: boolean) => void, private actions: Actions) {
    void this.poll();
  }

  // One after the other, in the order of the keys: the server gets them as they were made.
  decide(kind: string, options: { label?: string; mask?: SentMask; rows?: number[]; all?: number; advance?: boolean } = {}): Promise<void> {
    const selected = [...this.grid.selected];
    const current = this.current;
    const rows = options.rows ?? (selected.length ? selected : current !== null ? [current] : []);
    if (!rows.length && options.all === undefined) { this.say("Choose an image first", true); return this.running; }
    const body = { kind, label: options.label ?? null, mask: options.mask ?? null, ...(options.all === undefined ? { rows } : { filter: this.state.view.filter, count: options.all }) };
    if (options.advance !== false && !selected.length && options.all === undefined && !options.rows) this.actions.next();
    if (selected.length && !options.rows) this.grid.clearSelection();
    this.running = this.running.then(async () => {
      try {
        const written = await post<Written>("decide", body);
        this.undoable = [...this.undoable, { batch: written.batch, row: options.all === undefined ? rows[0] : null }].slice(-KEPT);
        remember(this.undoable);
        await this.follow();
        this.say(`${kind}${options.label ? ` ${clipped(options.label, 40)}` : ""}: ${counted(written.count, "image")}. z undoes.`);
      } catch (error) { this.say(`Not recorded: ${(error as Error).message}`, true); }
    });
    return this.running;
  }

  // The image that keys are about: the one that is open, else that of the grid.
  private get current(): number | null { return this.actions.shown() ?? this.grid.row(this.grid.current)?.n ?? null; }

  undo(): Promise<void> {
    this.running = this.running.then(async () => {
      try {
        const last = this.undoable.pop() ?? await this.earlier();
        if (!last) return;
        remember(this.undoable);
        const undone = await post<Written>("undo", { batch: last.batch });
        await this.follow();
        this.say(`Undone: ${counted(undone.count, "image")}`);
        if (last.row !== null) { await this.grid.find(last.row); if (this.state.view.at !== null) this.actions.open(last.row); }
      } catch (error) { this.say((error as Error).message, true); }
    });
    return this.running;
  }

  // The latest act under this name that this page did not make itself, such as one before a restart of the server; asked about first.
  private async earlier(): Promise<Undoable | null> {
    const act = await get<Act | null>("latest_act");
    if (!act) { this.say("Nothing to undo"); return null; }
    const what = `${act.kind}${act.label ? ` ${clipped(act.label, 40)}` : ""}, ${counted(act.count, "image")}`;
    const text = `Not made in this page: ${what}${act.count === 1 ? ` (${clipped(act.id, 60)})` : ""}, recorded by ${clipped(act.who, 30)} at ${new Date(act.when).toLocaleString()}.`;
    return await confirmed("Undo an earlier decision?", text, "Undo it") ? { batch: act.batch, row: act.row } : null;
  }

  private async poll(): Promise<void> {
    try { await this.follow(); } catch { /* the server may be gone; the next request says so */ }
    setTimeout(() => void this.poll(), POLL);
  }

  // What has been decided since, here or elsewhere.
  private async follow(): Promise<void> {
    const { version, changes } = await get<Changes>(`changes/${this.version}`);
    const first = !this.started; // what was decided before is in the rows already
    this.started = true;
    this.version = version;
    if (!changes.length || first) return;
    const groups = new Map<string, { ids: Set<string>; decision: string | null; label: string | null }>();
    for (const { id, decision, new_label } of changes) {
      const key = JSON.stringify([decision, new_label]);
      if (!groups.has(key)) groups.set(key, { ids: new Set(), decision, label: new_label });
      groups.get(key)!.ids.add(id);
    }
    for (const { ids, decision, label } of groups.values()) this.grid.touch(ids, decision, label);
    this.actions.changed();
  }

  // The same by key; true if the key was one of ours.
  key(key: string): boolean {
    const action = ACTIONS.find((one) => one.key === key);
    if (action) { if (action.kind === "relabel") void this.relabel(); else void this.decide(action.kind); return true; }
    if (key === "z") { void this.undo(); return true; }
    if (key === "m") { if (this.current !== null) void this.paint(this.current); return true; }
    return false;
  }

  async relabel(rows?: number[]): Promise<void> {
    const label = await this.pick(rows);
    if (label !== null) await this.decide("relabel", { label, rows, advance: !rows });
  }

  async paint(n: number): Promise<void> {
    try {
      const painted = await paintMask(n, (await get<Detail>(`detail/${n}`)).id);
      if (painted) await this.decide(painted.kind satisfies MaskKind, { mask: painted.mask, rows: [n] });
    } catch (error) { this.say((error as Error).message, true); }
  }

  // A class; label and prediction of the image, if there is just one, are marked.
  private pick(rows?: number[]): Promise<string | null> {
    const n = rows ? rows[0] : this.grid.selected.size ? undefined : this.current;
    const detail = n === undefined || n === null ? Promise.resolve(null) : get<Detail>(`detail/${n}`).catch(() => null);
    return chooseClass(this.store.classes, detail.then((row) => {
      const marks = new Map<string, string>();
      for (const [text, index] of [["label", row?.label], ["prediction", row?.prediction]] as const) {
        const name = typeof index === "number" ? this.store.classes[index] : undefined;
        if (name !== undefined) marks.set(name, marks.has(name) ? `${marks.get(name)}, ${text}` : text);
      }
      return marks;
    }));
  }

  // Everything that matches, after it was said what that is.
  private async decideAll(kind: string, text: string, images: number): Promise<void> {
    const label = kind === "relabel" ? await this.pick([]) : undefined;
    if (label === null) return;
    const shown = chips(this.store, this.state).filter((chip) => chip.classList.contains("chip")).map((chip) => chip.textContent!.replace(/ ×$/, ""));
    const about = shown.length ? `Those that match: ${shown.join("; ")}.` : "No filter is set: these are all images of the store.";
    const title = `${text}${label ? ` to ${clipped(label, 40)}` : ""}: all ${counted(images, "image")}?`;
    if (await confirmed(title, about, `${text} ${counted(images, "image")}`)) await this.decide(kind, { label, all: images, advance: false });
  }

  private buttons(rows?: number[], all?: number): HTMLElement[] {
    return ACTIONS.map(({ kind, key, text, title }) => el("button", { type: "button", title: all === undefined ? `${title} (key ${key})` : title, className: `decide ${kind}`, onclick: () => {
      if (all !== undefined) void this.decideAll(kind, text, all);
      else if (kind === "relabel") void this.relabel(rows);
      else void this.decide(kind, { rows, advance: false });
    } }, text));
  }

  // Beside one image.
  panel(detail: Detail): HTMLElement[] {
    if (!this.store.decisions) return [];
    const made = detail.decisions.map(({ kind, label_name, who }) => el("span", { className: `decision ${kind}` }, `${kind}${label_name ? ` ${clipped(label_name, 30)}` : ""}${who ? ` (${clipped(who, 20)})` : ""} `));
    return [el("div", { className: "decide-bar", role: "group", "aria-label": "Decide" }, ...this.buttons([detail.n]),
      el("button", { type: "button", title: "Paint what the model should not use, or what belongs to the class (key m)", onclick: () => void this.paint(detail.n) }, "Paint"),
      el("button", { type: "button", className: "quiet", title: "Undo the last decision of this page (key z)", onclick: () => void this.undo() }, "Undo")),
    ...(made.length ? [el("p", { className: "made" }, "Decided: ", ...made)] : [])];
  }

  // Above the grid: for what is selected, or for everything that matches.
  bar(matching: number): HTMLElement[] {
    if (!this.store.decisions) return [];
    const count = this.grid.selected.size;
    if (count) return [el("span", {}, `${counted(count, "image")} selected: `), ...this.buttons(), el("button", { type: "button", className: "quiet", onclick: () => this.grid.clearSelection() }, "clear")];
    return [el("details", { className: "all" }, el("summary", {}, "Decide all"), el("div", { className: "menu" }, el("p", {}, matching ? `All ${counted(matching, "image")} that match:` : "No image matches."), ...(matching ? this.buttons(undefined, matching) : []),
      el("p", {}, el("button", { type: "button", onclick: () => void this.download() }, "Download the manifest"))))];
  }

  async download(): Promise<void> {
    try {
      const { blob, name } = await download("manifest");
      const link = el("a", { href: URL.createObjectURL(blob), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    } catch (error) { this.say((error as Error).message, true); }
  }
}

// What this tab can undo, kept by the browser as long as the tab.
function remembered(): Undoable[] {
  try {
    const kept: unknown = JSON.parse(sessionStorage.getItem(MEMORY) ?? "[]");
    return Array.isArray(kept) ? kept.filter((act): act is Undoable => typeof act?.batch === "string") : [];
  } catch { return []; }
}

function remember(acts: Undoable[]): void { try { sessionStorage.setItem(MEMORY, JSON.stringify(acts)); } catch { /* for this visit only */ } }
