// Decisions: by key or button, for one image or all that are selected, with undo; other open pages are followed.
import { get, post, type Detail, type Store } from "./api";
import { clipped, counted, el, foreign } from "./dom";
import type { Grid } from "./grid";
import { paintMask, type SentMask } from "./paint";
import type { State } from "./state";

interface Written { batch: string; count: number; version: number }
interface Changes { version: number; changes: { id: string; decision: string | null; new_label: string | null }[] }
const POLL = 3000; // milliseconds
const LISTED = 60;
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
  private undoable: Written[] = [];
  private picker = el("dialog", { "aria-label": "Choose the right class" });
  private running: Promise<void> = Promise.resolve();

  constructor(private store: Store, private state: State, private grid: Grid, private say: (text: string, failed?: boolean) => void, private changed: () => void) {
    document.body.append(this.picker);
    void this.poll();
  }

  // One after the other, in the order of the keys: the server gets them as they were made.
  decide(kind: string, options: { label?: string; mask?: SentMask; rows?: number[]; all?: boolean; advance?: boolean } = {}): Promise<void> {
    const selected = [...this.grid.selected];
    const current = this.grid.row(this.grid.current);
    const rows = options.rows ?? (selected.length ? selected : current ? [current.n] : []);
    if (!rows.length && !options.all) { this.say("Choose an image first", true); return this.running; }
    const body = { kind, label: options.label ?? null, mask: options.mask ?? null, ...(options.all ? { filter: this.state.view.filter } : { rows }) };
    if (options.advance !== false && !selected.length && !options.all && !options.rows) void this.grid.go(this.grid.current + 1, false);
    if (selected.length && !options.rows) this.grid.clearSelection();
    this.running = this.running.then(async () => {
      try {
        const written = await post<Written>("decide", body);
        this.undoable.push(written);
        await this.follow();
        this.say(`${kind}${options.label ? ` ${clipped(options.label, 40)}` : ""}: ${counted(written.count, "image")}. z undoes.`);
      } catch (error) { this.say(`Not recorded: ${(error as Error).message}`, true); }
    });
    return this.running;
  }

  undo(): Promise<void> {
    this.running = this.running.then(async () => {
      const last = this.undoable.pop();
      if (!last) { this.say("Nothing to undo in this page"); return; }
      try {
        const undone = await post<Written>("undo", { batch: last.batch });
        await this.follow();
        this.say(`Undone: ${counted(undone.count, "image")}`);
      } catch (error) { this.say((error as Error).message, true); }
    });
    return this.running;
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
    this.changed();
  }

  // The same by key; true if the key was one of ours.
  key(key: string): boolean {
    const action = ACTIONS.find((one) => one.key === key);
    if (action) { if (action.kind === "relabel") void this.relabel(); else void this.decide(action.kind); return true; }
    if (key === "z") { void this.undo(); return true; }
    if (key === "m") { const row = this.grid.row(this.grid.current); if (row) void this.paint(row.n, row.id); return true; }
    return false;
  }

  async relabel(rows?: number[]): Promise<void> {
    const label = await this.pick();
    if (label !== null) await this.decide("relabel", { label, rows, advance: !rows });
  }

  async paint(n: number, id: string): Promise<void> {
    try {
      const mask = await paintMask(n, id);
      if (mask) await this.decide("shortcut", { mask, rows: [n] });
    } catch (error) { this.say((error as Error).message, true); }
  }

  private pick(): Promise<string | null> {
    return new Promise((resolve) => {
      const search = el("input", { type: "search", placeholder: "class", "aria-label": "Find a class", autocomplete: "off" });
      const list = el("ul", { className: "choices" });
      const answer = (label: string | null) => { this.picker.close(); resolve(label); };
      const matching = () => this.store.classes.filter((name) => name.toLocaleLowerCase().includes(search.value.toLocaleLowerCase())).slice(0, LISTED);
      const draw = () => list.replaceChildren(...matching().map((name) => el("li", {}, el("button", { type: "button", className: "quiet", onclick: () => answer(name) }, foreign(name, 60)))));
      search.addEventListener("input", draw);
      search.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); const [name] = matching(); if (name !== undefined) answer(name); } });
      this.picker.replaceChildren(el("h2", {}, "The right class"), search, list, el("button", { type: "button", onclick: () => answer(null) }, "Cancel"));
      this.picker.oncancel = () => resolve(null);
      draw();
      this.picker.showModal();
      search.focus();
    });
  }

  private buttons(rows?: number[], all = false): HTMLElement[] {
    return ACTIONS.map(({ kind, key, text, title }) => el("button", { type: "button", title: `${title} (key ${key})`, className: `decide ${kind}`, onclick: () => {
      if (kind === "relabel") { if (all) void this.pick().then((label) => { if (label !== null) void this.decide(kind, { label, all }); }); else void this.relabel(rows); } else void this.decide(kind, { rows, all, advance: false });
    } }, text));
  }

  // Beside one image.
  panel(detail: Detail): HTMLElement[] {
    if (!this.store.decisions) return [];
    const made = detail.decisions.map(({ kind, label_name, who }) => el("span", { className: `decision ${kind}` }, `${kind}${label_name ? ` ${clipped(label_name, 30)}` : ""}${who ? ` (${clipped(who, 20)})` : ""} `));
    return [el("div", { className: "decide-bar", role: "group", "aria-label": "Decide" }, ...this.buttons([detail.n]),
      el("button", { type: "button", title: "Paint what the model should not use (key m)", onclick: () => void this.paint(detail.n, detail.id) }, "Paint shortcut"),
      el("button", { type: "button", className: "quiet", title: "Undo the last decision of this page (key z)", onclick: () => void this.undo() }, "Undo")),
    ...(made.length ? [el("p", { className: "made" }, "Decided: ", ...made)] : [])];
  }

  // Above the grid: for what is selected, or for everything that matches.
  bar(matching: number): HTMLElement[] {
    if (!this.store.decisions) return [];
    const count = this.grid.selected.size;
    if (count) return [el("span", {}, `${counted(count, "image")} selected: `), ...this.buttons(), el("button", { type: "button", className: "quiet", onclick: () => this.grid.clearSelection() }, "clear")];
    return [el("details", { className: "all" }, el("summary", {}, "Decide all"), el("div", { className: "menu" }, el("p", {}, `All ${counted(matching, "image")} that match:`), ...this.buttons(undefined, true),
      el("p", {}, el("button", { type: "button", onclick: () => void this.download() }, "Download the manifest"))))];
  }

  async download(): Promise<void> {
    try {
      const response = await fetch("api/manifest", { method: "POST", headers: { "content-type": "application/json" }, body: "{}" });
      if (!response.ok) throw new Error((await response.json()).error);
      const link = el("a", { href: URL.createObjectURL(await response.blob()), download: response.headers.get("x-heatlas-name") ?? "manifest.csv" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    } catch (error) { this.say((error as Error).message, true); }
  }
}

