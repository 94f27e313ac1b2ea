// The filters: outcome, histograms, classes, queues, clusters, status, decisions and a condition in SQL.
import { classMean, type ClassRow, type MapPixels, type Selected, type Store } from "./api";
import type { Colours } from "./colours";
import { clipped, counted, el, foreign, lines, nodes, percent } from "./dom";
import { Histogram } from "./histogram";
import { regionTitle } from "./scatter";
import { emptyFilter, isEmpty, type Filter, type State } from "./state";

const SHOWN_CLASSES = 200;
const SELECTABLE_CLASSES = 2000;
export const KINDS = ["ok", "relabel", "drop", "shortcut", "core", "unsure"];

export class Facets {
  private histograms = new Map<string, Histogram>();
  private place = el("div", { className: "histograms" });
  private more: HTMLSelectElement;
  private classBody = el("tbody");
  private classSearch = el("input", { type: "search", placeholder: "find a class", "aria-label": "Find a class", oninput: () => this.drawClasses() });
  private classes: ClassRow[] = [];
  private means = new Map<number, Promise<MapPixels | null>>();
  private watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) { this.watcher.unobserve(target); void this.mean(target as HTMLCanvasElement); }
  });
  private selects: [keyof Filter, HTMLSelectElement][] = [];
  private sql: HTMLTextAreaElement;
  private error = el("p", { className: "error", role: "alert", hidden: true });

  constructor(root: HTMLElement, private store: Store, private state: State, private whole: Record<string, number[]>, private refresh: () => void, private colours: Colours) {
    this.more = el("select", { "aria-label": "Add a histogram", onchange: () => { this.open(this.more.value); this.more.value = ""; this.refresh(); } });
    this.sql = el("textarea", { rows: 2, spellcheck: false, placeholder: "ebpg < 0.2 AND confidence > 0.9", "aria-label": "Condition in SQL over the columns", onchange: () => this.state.filter({ sql: this.sql.value.trim() }) });
    const count = (named: { name: string; rows: number; title?: string }) => [named.name, `${clipped(named.title ?? named.name, 48)} (${named.rows.toLocaleString("en")})`] as [string, string];
    const outcomes = this.select("outcome", "Prediction", store.outcomes.map((name) => [name, name]));
    const queue = store.queues.length ? this.select("queue", "Review queue", store.queues.map(count)) : null;
    const cluster = store.clusters.length ? this.select("cluster", "Cluster of maps", store.clusters.map(count)) : null;
    const status = store.statuses.length > 1 ? this.statusSelect() : null;
    const decision = store.decisions ? this.select("decision", "Decision", [["none", "not decided"], ["any", "decided"], ...KINDS.map((kind) => [kind, kind] as [string, string])]) : null;
    const predicted = store.classes.length && store.classes.length <= SELECTABLE_CLASSES ? this.numberSelect("prediction", "Predicted class") : null;
    const second = store.relations.length ? this.select("second", "Second store", store.relations.map((name) => [name, name])) : null;
    const targets = store.rows > store.images ? this.select("targets", "Rows", [["all", `all ${store.rows.toLocaleString("en")} explained classes`]], "one per image") : null;
    root.append(...nodes(
      el("div", { className: "selects" }, outcomes, predicted, second, queue, cluster, status, decision, targets),
      store.off_object ? el("p", { className: "small" }, `Off-object: ${store.off_object}`) : null,
      this.place, el("p", {}, this.more),
      el("section", { className: "facet" }, el("h3", {}, "Classes (by label)"), this.classSearch,
        el("div", { className: "scroll", tabIndex: 0 }, el("table", { className: "classes" },
          el("thead", {}, el("tr", {}, ...["Map", "Class", "Rows", "Correct", "Off-object"].map((name, at) => el("th", { scope: "col", className: at > 1 ? "n" : "" }, name)))), this.classBody))),
      el("section", { className: "facet" }, el("h3", {}, "Condition in SQL"), this.sql, this.error)));
    for (const column of store.columns) if (column.open || state.view.filter.ranges[column.name]) this.open(column.name);
    this.list();
    this.show();
  }

  get columns(): string[] { return [...this.histograms.keys()]; }

  private select(name: keyof Filter, title: string, options: [string, string][], none = "all"): HTMLElement {
    const select = el("select", { onchange: () => this.state.filter({ [name]: select.value || (name === "targets" ? "main" : "") }) },
      el("option", { value: "" }, none), ...options.map(([value, text]) => el("option", { value }, text)));
    this.selects.push([name, select]);
    return el("label", {}, `${title} `, select);
  }

  private statusSelect(): HTMLElement {
    const select = el("select", { onchange: () => this.state.filter({ status: select.value ? [select.value] : [] }) },
      el("option", { value: "" }, "all"), ...this.store.statuses.map(({ name, rows }) => el("option", { value: name }, `${clipped(name, 40)} (${rows.toLocaleString("en")})`)));
    this.selects.push(["status", select]);
    return el("label", {}, "Status ", select);
  }

  private numberSelect(name: "prediction", title: string): HTMLElement {
    const select = el("select", { onchange: () => this.state.filter({ [name]: select.value === "" ? [] : [Number(select.value)] }) },
      el("option", { value: "" }, "all"), ...this.store.classes.map((text, index) => el("option", { value: String(index) }, clipped(text, 48))));
    this.selects.push([name, select]);
    return el("label", {}, `${title} `, select);
  }

  private open(name: string): void {
    const column = this.store.columns.find((one) => one.name === name);
    if (!column || this.histograms.has(name)) return;
    const histogram = new Histogram(column, this.whole[name] ?? [], (range, gesture) => this.state.range(name, range, gesture), () => {
      this.histograms.delete(name);
      histogram.root.remove();
      this.list();
      this.state.range(name, null);
    });
    this.histograms.set(name, histogram);
    this.place.append(histogram.root);
    this.list();
  }

  private list(): void {
    const closed = this.store.columns.filter((column) => !this.histograms.has(column.name));
    this.more.replaceChildren(el("option", { value: "" }, "Add a histogram …"), ...closed.map(({ name, title }) => el("option", { value: name }, `${title} (${name})`)));
    this.more.hidden = !closed.length;
  }

  update(selected: Selected): void {
    for (const [name, histogram] of this.histograms) histogram.update(selected.histograms[name] ?? [], this.state.view.filter.ranges[name] ?? null);
    if (selected.classes) { this.classes = selected.classes; this.drawClasses(); }
    this.fail("");
  }

  fail(text: string): void {
    this.error.hidden = !text;
    this.error.textContent = lines(text);
    if (!text) return;
    for (const [name, histogram] of this.histograms) histogram.update([], this.state.view.filter.ranges[name] ?? null);
    this.classes = [];
    this.drawClasses();
  }

  // The controls as the state has them, which may come from the address.
  show(): void {
    const { filter } = this.state.view;
    for (const name of Object.keys(filter.ranges)) this.open(name);
    for (const [name, select] of this.selects) {
      const value = filter[name];
      const wanted = Array.isArray(value) ? (value[0] ?? "") : value === "main" ? "" : value;
      select.value = String(wanted);
    }
    this.sql.value = filter.sql;
    this.drawClasses();
  }

  private drawClasses(): void {
    const wanted = this.classSearch.value.toLocaleLowerCase();
    const chosen = new Set(this.state.view.filter.label);
    const name = (label: number) => this.store.classes[label] ?? `class ${label}`;
    const listed = this.classes.filter(({ label }) => chosen.has(label) || name(label).toLocaleLowerCase().includes(wanted)).slice(0, SHOWN_CLASSES);
    this.classBody.replaceChildren(...listed.map((row) => {
      const toggle = () => {
        const labels = this.state.view.filter.label;
        this.state.filter({ label: chosen.has(row.label) ? labels.filter((label) => label !== row.label) : [...labels, row.label] });
      };
      const share = row.correct ? (100 * row.off_object) / row.correct : 0;
      const canvas = el("canvas", { className: "mean", width: 1, height: 1, role: "img", "aria-label": `Mean map of ${clipped(name(row.label), 40)}` });
      canvas.dataset.label = String(row.label);
      if (this.store.map) this.watcher.observe(canvas);
      return el("tr", { className: chosen.has(row.label) ? "chosen" : "" }, el("td", {}, canvas),
        el("td", {}, el("button", { type: "button", className: "quiet", "aria-pressed": chosen.has(row.label), onclick: toggle }, foreign(name(row.label), 40))),
        el("td", { className: "n" }, row.rows.toLocaleString("en")),
        el("td", { className: "n" }, percent(row.correct, row.judged)),
        el("td", { className: `n${share >= 50 ? " alarm" : ""}` }, percent(row.off_object, row.correct)));
    }));
  }

  private async mean(canvas: HTMLCanvasElement): Promise<void> {
    const label = Number(canvas.dataset.label);
    if (!this.means.has(label)) this.means.set(label, classMean(label).catch(() => null));
    const pixels = await this.means.get(label);
    if (pixels?.maps[0]) this.colours.draw(canvas, pixels.maps[0], pixels.height, pixels.width);
  }
}

// What is filtered by, each with a button that takes it away.
export function chips(store: Store, state: State): HTMLElement[] {
  const { filter } = state.view;
  const found: HTMLElement[] = [];
  const chip = (text: string, part: Partial<Filter>) => found.push(el("button", { type: "button", className: "chip", title: "Remove this filter", onclick: () => state.filter(part) }, foreign(text, 60), " ×"));
  for (const [name, [low, high]] of Object.entries(filter.ranges)) {
    const ranges = { ...filter.ranges };
    delete ranges[name];
    const short = (value: number) => String(Number(value.toPrecision(4)));
    chip(`${low === null ? "" : `${short(low)} ≤ `}${name}${high === null ? "" : ` < ${short(high)}`}`, { ranges });
  }
  for (const label of filter.label) chip(`label ${store.classes[label] ?? label}`, { label: filter.label.filter((one) => one !== label) });
  for (const index of filter.prediction) chip(`prediction ${store.classes[index] ?? index}`, { prediction: filter.prediction.filter((one) => one !== index) });
  for (const status of filter.status) chip(status, { status: [] });
  if (filter.outcome) chip(filter.outcome, { outcome: "" });
  if (filter.text) chip(`id contains ${filter.text}`, { text: "" });
  if (filter.queue) chip(`queue ${filter.queue}`, { queue: "" });
  if (filter.cluster) chip(store.clusters.find(({ name }) => name === filter.cluster)?.title ?? `cluster ${filter.cluster}`, { cluster: "" });
  if (filter.decision) chip(filter.decision === "none" ? "not decided" : filter.decision === "any" ? "decided" : `decided: ${filter.decision}`, { decision: "" });
  if (filter.second) chip(`second store: ${filter.second}`, { second: "" });
  if (filter.sql) chip(filter.sql.replace(/\s+/g, " "), { sql: "" });
  if (filter.region) chip(regionTitle(filter.region), { region: "" });
  if (filter.targets !== "main") chip("all explained classes", { targets: "main" });
  if (!isEmpty(filter)) found.push(el("button", { type: "button", className: "quiet", onclick: () => state.filter(emptyFilter()) }, "clear all"));
  return found;
}

export function totalsText(selected: Selected, store: Store): string {
  const { rows, images, judged, correct, off_object } = selected.totals;
  const parts = [rows > images ? `${rows.toLocaleString("en")} rows, ${images.toLocaleString("en")} of ${counted(store.images, "image")}` : `${rows.toLocaleString("en")} of ${counted(store.images, "image")}`];
  if (judged) parts.push(`${percent(correct, judged)} correct`);
  if (store.off_object && correct) parts.push(`${percent(off_object, correct)} of these off-object`);
  return parts.join(", ");
}
