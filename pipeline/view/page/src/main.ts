// Starts the page: asks what the store is, draws filters and grid, and follows what is chosen.
import { get, post, type Selected, type Store } from "./api";
import { byId, clipped, el, harmless, lines } from "./dom";
import { Colours } from "./colours";
import { Decisions } from "./decide";
import { chips, Facets, totalsText } from "./facets";
import { DetailView } from "./detail";
import { Grid, gridOf } from "./grid";
import { Scatter } from "./scatter";
import { State } from "./state";

const SEARCH_DELAY = 200; // milliseconds
const KEYS: [string, string][] = [
  ["← → ↑ ↓", "previous or next image, line up or down"], ["Enter", "open the image"], ["Esc", "close it, or clear the selection"],
  ["x, Shift + click, Ctrl + click", "select images"], ["/", "find an id"], ["k, r, d, s, u", "keep, relabel, drop, shortcut, unsure: the image or the selection"], ["m", "paint a region: shortcut, or core of the class"], ["z", "undo the last decision, and go back to its image"], ["o", "map on or off"], ["c", "outline of the strongest region"], ["b", "outline of the marked object"], ["e", "scatter plot"], ["?", "this list"], ["← → in a histogram", "move a range by a bin; with Shift widen or narrow it; Delete removes it"], ["Back (of the browser)", "take back a filter, or close the image"],
];

const remember = (key: string, value: string) => { try { localStorage.setItem(key, value); } catch { /* for this visit only */ } };
const recall = (key: string): string | null => { try { return localStorage.getItem(key); } catch { return null; } };

export function toast(text: string, failed = false): void {
  const place = byId("toast");
  place.textContent = lines(text);
  place.classList.toggle("failed", failed);
  place.hidden = false;
  clearTimeout(Number(place.dataset.timer));
  place.dataset.timer = String(setTimeout(() => { place.hidden = true; }, failed ? 8000 : 4000));
}

function theme(): void {
  const order = ["auto", "light", "dark"], button = byId("theme");
  let now = recall("heatlas-theme") ?? "auto";
  const apply = () => {
    if (now === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = now;
    button.textContent = `Theme: ${now}`;
  };
  button.addEventListener("click", () => { now = order[(order.indexOf(now) + 1) % order.length]; remember("heatlas-theme", now); apply(); });
  apply();
}

async function start(): Promise<void> {
  theme();
  const store = await get<Store>("store");
  const state = new State();
  const colours = new Colours(store.colours);
  document.title = `heatlas view: ${clipped(store.uri, 60)}`;
  byId("store").textContent = clipped(`${store.uri}, ${store.method}`, 90);
  byId("store").title = harmless(store.model);
  const notes = byId("notes");
  notes.hidden = !store.notes.length;
  notes.append(...store.notes.map((note) => el("p", {}, harmless(note))));

  const opacity = byId<HTMLInputElement>("opacity"), outline = byId<HTMLInputElement>("outline"), truth = byId<HTMLInputElement>("truth");
  let hidden = false, drawing = 0;
  const strength = () => (hidden ? 0 : Number(opacity.value) / 100);
  const options = { opacity: strength, outline: () => outline.checked, truth: () => truth.checked };
  const grid = new Grid(gridOf(), store, state, colours, (row, open) => { if (open || detail.n !== null) state.open(row.n, true); }, () => bulk(), options);
  const close = () => state.open(null);
  // The image that the state names, and its place among those that match.
  const follow = async (): Promise<void> => {
    const n = state.view.at;
    if (n === null) { if (detail.n !== null) { detail.close(); gridOf().focus({ preventScroll: true }); grid.draw(); } return; }
    const [, matches] = await Promise.all([detail.show(n), grid.find(n)]);
    if (detail.n === n) detail.place(matches);
  };
  // From an image that does not match, the first step leads back to those that do.
  const step = (by: number, open: boolean) => void grid.go(grid.current < 0 || detail.isOutside ? Math.max(grid.current, 0) : Math.min(Math.max(grid.current + by, 0), grid.total - 1), open);
  const detail = new DetailView(byId("detail"), store, colours, options,
    { close, step: (by) => step(by, true), extra: (shown) => decisions?.panel(shown) ?? [], go: (n) => state.open(n), marked: (n, marked) => grid.marked(n, marked) });
  const decisions: Decisions | null = store.decisions ? new Decisions(store, state, grid, toast, {
    changed: () => {
      if (detail.n !== null) void follow().catch(failed);
      if (state.view.filter.decision) void refresh();
    },
    open: (n) => state.open(n, true), next: () => step(1, false), shown: () => detail.n,
  }) : null;
  const failed = (error: Error) => { if (error.name !== "AbortError") toast(error.message, true); };
  gridOf().addEventListener("failed", (event) => { facets.fail((event as CustomEvent<string>).detail); });

  const overlay = () => {
    document.documentElement.style.setProperty("--opacity", String(strength()));
    document.documentElement.classList.toggle("plain", strength() === 0);
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(() => detail.draw());
  };
  const marks = () => { detail.draw(); grid.marks(); };
  opacity.addEventListener("input", () => { hidden = false; overlay(); });
  outline.addEventListener("change", marks);
  truth.addEventListener("change", marks);
  overlay();

  const bulk = () => {
    byId("bulk").replaceChildren(...(decisions?.bar(Number(byId("totals").dataset.images ?? 0)) ?? []));
  };

  const first = await post<Selected>("select", { filter: { ...state.view.filter, ranges: {}, label: [], prediction: [], status: [], outcome: "", text: "", queue: "", cluster: "", decision: "", second: "", sql: "", region: "" }, columns: store.columns.map(({ name }) => name), classes: true });
  let asking: AbortController | null = null, again = false;
  // one question at a time: while it is answered only the latest wish is remembered
  const refresh = async (): Promise<void> => {
    if (asking) { again = true; return; }
    asking = new AbortController();
    try {
      const { filter } = state.view;
      const selected = await post<Selected>("select", { filter, columns: facets.columns, classes: true }, asking.signal);
      facets.update(selected);
      byId("totals").textContent = totalsText(selected, store);
      Object.assign(byId("totals").dataset, { rows: selected.totals.rows, images: selected.totals.images });
      bulk();
    } catch (error) {
      facets.fail((error as Error).message);
      byId("totals").textContent = "The filter cannot be applied";
      Object.assign(byId("totals").dataset, { rows: 0, images: 0 });
      bulk();
    } finally {
      asking = null;
      if (again) { again = false; void refresh(); }
    }
  };
  const facets = new Facets(byId("filters"), store, state, first.histograms, () => void refresh(), colours);

  const sort = byId<HTMLSelectElement>("sort"), direction = byId("direction"), search = byId<HTMLInputElement>("search");
  sort.append(el("option", { value: "" }, "stored order"), el("option", { value: "id" }, "id"), el("option", { value: "draw" }, "random"), el("option", { value: "label" }, "label"), el("option", { value: "prediction" }, "prediction"),
    ...store.columns.map(({ name, title }) => el("option", { value: name }, `${title} (${name})`)));
  sort.addEventListener("change", () => state.set({ ...state.view, sort: sort.value }));
  direction.addEventListener("click", () => state.set({ ...state.view, descending: !state.view.descending }));
  let timer = 0;
  let typing = 0; // what is typed without leaving the field is one change
  search.addEventListener("focus", () => { typing += 1; });
  search.addEventListener("input", () => { clearTimeout(timer); timer = window.setTimeout(() => state.filter({ text: search.value }, `search ${typing}`), SEARCH_DELAY); });
  const controls = () => {
    sort.value = state.view.sort;
    direction.textContent = state.view.descending ? "↓" : "↑";
    direction.title = state.view.descending ? "Largest first" : "Smallest first";
    if (document.activeElement !== search) search.value = state.view.filter.text;
    byId("chips").replaceChildren(...chips(store, state));
    facets.show();
  };
  state.on((change) => {
    controls();
    if (change.filter) { void refresh(); void scatter.follow().catch(failed); }
    if (change.order) void grid.reset().then(() => { if (state.view.at !== null) return follow(); }).catch(failed);
    else if (change.at) void follow().catch(failed);
  });

  const scatter = new Scatter(byId("scatter"), store, state, colours, { open: (n) => state.open(n), fail: failed });
  const scatterButton = byId("toggle-scatter");
  scatterButton.hidden = !store.embeddings.length;
  const toggleScatter = () => { void scatter.toggle().catch(failed); scatterButton.setAttribute("aria-expanded", String(scatter.isOpen)); };
  scatterButton.addEventListener("click", toggleScatter);

  const toggle = byId("toggle-filters");
  toggle.addEventListener("click", () => {
    const open = document.body.classList.toggle("filters-open");
    toggle.setAttribute("aria-expanded", String(open));
  });
  const keys = byId<HTMLDialogElement>("keys");
  keys.append(el("h2", {}, "Keys"), el("dl", {}, ...KEYS.flatMap(([key, text]) => [el("dt", {}, key), el("dd", {}, text)])), el("button", { type: "button", onclick: () => keys.close() }, "Close"));
  byId("help").addEventListener("click", () => keys.showModal());

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const target = event.target as HTMLElement;
    if (target.closest("input:not([type=range]):not([type=checkbox]), select, textarea, dialog")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid.perLine, ArrowUp: -grid.perLine }[event.key];
    if (move !== undefined && target.closest("input")) return;
    if (move !== undefined) step(move, false);
    else if (event.key === "Enter" && !target.closest("button") && grid.current >= 0) void grid.go(grid.current, true);
    else if (event.key === "Escape") { if (detail.n !== null) close(); else grid.clearSelection(); }
    else if (event.key === "x" && grid.current >= 0 && !detail.isOutside) grid.toggle(grid.current);
    else if (event.key === "/") search.focus();
    else if (event.key === "o") { hidden = !hidden; overlay(); }
    else if (event.key === "c") { outline.checked = !outline.checked; outline.dispatchEvent(new Event("change")); }
    else if (event.key === "b") { truth.checked = !truth.checked; marks(); }
    else if (event.key === "e" && store.embeddings.length) toggleScatter();
    else if (event.key === "?") keys.showModal();
    else if (decisions?.key(event.key)) { /* done there */ }
    else return;
    event.preventDefault();
  });

  controls();
  await Promise.all([refresh(), grid.reset()]);
  if (state.view.filter.region) void scatter.follow().catch(failed);
  if (state.view.at !== null) void follow().catch(failed);
  gridOf().focus({ preventScroll: true });
  document.documentElement.dataset.ready = "1";
}

start().catch((error: Error) => toast(`The view cannot start: ${error.message}`, true));
