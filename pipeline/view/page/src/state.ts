// What is shown: filter, order and the image in focus. Kept in the address after #, which browsers send to nobody.

export type Range = [number | null, number | null];
export interface Filter {
  ranges: Record<string, Range>; label: number[]; prediction: number[]; status: string[]; outcome: string; text: string;
  queue: string; cluster: string; decision: string; second: string; sql: string; region: string; targets: string;
}
// `at` is the row of the image that is open
export interface View { filter: Filter; sort: string; descending: boolean; at: number | null }

const TEXTS = ["outcome", "text", "queue", "cluster", "decision", "second", "sql", "region"] as const;

export function emptyFilter(): Filter {
  return { ranges: {}, label: [], prediction: [], status: [], outcome: "", text: "", queue: "", cluster: "", decision: "", second: "", sql: "", region: "", targets: "main" };
}

export function isEmpty(filter: Filter): boolean {
  return JSON.stringify(filter) === JSON.stringify(emptyFilter());
}

export function toHash(view: View): string {
  const parts = new URLSearchParams();
  for (const [name, [low, high]] of Object.entries(view.filter.ranges)) parts.set(`r.${name}`, `${low ?? ""}..${high ?? ""}`);
  for (const name of ["label", "prediction", "status"] as const) if (view.filter[name].length) parts.set(name, view.filter[name].join(","));
  for (const name of TEXTS) if (view.filter[name]) parts.set(name, view.filter[name]);
  if (view.filter.targets !== "main") parts.set("targets", view.filter.targets);
  if (view.sort) parts.set("sort", view.sort);
  if (view.descending) parts.set("descending", "1");
  if (view.at !== null) parts.set("row", String(view.at));
  return parts.toString();
}

const numbers = (text: string | null): number[] => (text ?? "").split(",").filter((part) => /^-?\d+$/.test(part)).map(Number);

function range(text: string): Range | null {
  const ends = text.split("..");
  if (ends.length !== 2) return null;
  const [low, high] = ends.map((end) => (end === "" ? null : Number(end)));
  return [low, high].some((end) => end !== null && !Number.isFinite(end)) ? null : [low, high];
}

export function fromHash(hash: string): View {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const filter = emptyFilter();
  for (const [name, value] of parts) {
    const ends = name.startsWith("r.") ? range(value) : null;
    if (ends) filter.ranges[name.slice(2)] = ends;
  }
  filter.label = numbers(parts.get("label"));
  filter.prediction = numbers(parts.get("prediction"));
  filter.status = (parts.get("status") ?? "").split(",").filter(Boolean);
  for (const name of TEXTS) filter[name] = parts.get(name) ?? "";
  filter.targets = parts.get("targets") === "all" ? "all" : "main";
  const row = parts.get("row");
  return { filter, sort: parts.get("sort") ?? "", descending: parts.get("descending") === "1", at: row !== null && /^\d+$/.test(row) ? Number(row) : null };
}

type Listener = (change: { filter: boolean; order: boolean; at: boolean }) => void;

export class State {
  view: View = fromHash(location.hash);
  private listeners: Listener[] = [];
  private gesture = ""; // what the newest entry of the history belongs to, such as one drag of a brush

  constructor() {
    addEventListener("hashchange", () => {
      if (location.hash.replace(/^#/, "") !== toHash(this.view)) this.set(fromHash(location.hash), null);
    });
  }

  on(listener: Listener): void { this.listeners.push(listener); }

  // Every change is an entry of the browser's history, so that Back takes it back; changes of one gesture share an entry.
  // `gesture` is its name, empty for a change of its own, null where the history is what changed.
  set(view: View, gesture: string | null = ""): void {
    const before = this.view;
    this.view = view;
    const filter = JSON.stringify(before.filter) !== JSON.stringify(view.filter);
    const order = filter || before.sort !== view.sort || before.descending !== view.descending;
    if (gesture !== null && toHash(before) !== toHash(view)) {
      const address = `#${toHash(view)}`;
      if (gesture && gesture === this.gesture) history.replaceState(null, "", address); else history.pushState(null, "", address);
    }
    this.gesture = gesture ?? "";
    const change = { filter, order, at: before.at !== view.at };
    if (change.filter || change.order || change.at) for (const listener of this.listeners) listener(change);
  }

  filter(part: Partial<Filter>, gesture = ""): void { this.set({ ...this.view, filter: { ...this.view.filter, ...part } }, gesture); }

  // Going from image to image is one gesture: Back closes the image, or returns to where a link in it came from.
  open(n: number | null, step = false): void { this.set({ ...this.view, at: n }, step ? "step" : ""); }

  range(name: string, ends: Range | null, gesture = ""): void {
    const ranges = { ...this.view.filter.ranges };
    if (ends === null) delete ranges[name]; else ranges[name] = ends;
    this.filter({ ranges }, gesture);
  }
}
