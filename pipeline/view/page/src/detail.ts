// One image, large: its map over it, what the model said, the metrics, and why it stands in a queue.
import { blockMaps, fullMap, get, imageAt, maps, post, secondMap, truthOf, type Detail, type MapPixels, type Nearest, type NoTruth, type SecondRow, type Store, type Truth } from "./api";
import { byId, clipped, counted, el, figure, foreign, lines, nodes } from "./dom";
import { drawDifference, drawOutline, drawTruth, overlap, STRONGEST, type Colours, type OneMap } from "./colours";

const SIDE = 448;

export class DetailView {
  n: number | null = null;
  private image: ImageBitmap | null = null;
  private map: OneMap | null = null;
  private truth: Truth | NoTruth | null = null;
  private truthText = el("span", { className: "truth-text small", hidden: true });
  private outlineText = el("span", { className: "small" });
  private outside = el("p", { className: "outside", role: "status", hidden: true }, "This image does not match the filter; ← and → go back to those that do.");
  private further: (() => void)[] = []; // how each further picture is drawn: blocks, second store
  private canvas = el("canvas", { className: "overlay", role: "img" });
  private plain = el("canvas", { className: "overlay plain", role: "img" });
  private version = 0;
  detail: Detail | null = null;

  constructor(private root: HTMLElement, private store: Store, private colours: Colours, private options: { opacity: () => number; outline: () => boolean; truth: () => boolean }, private actions: { close: () => void; step: (by: number) => void; extra: (detail: Detail) => HTMLElement[]; go: (n: number) => void; marked: (n: number, truth: Truth | NoTruth | null) => void }) {}

  close(): void {
    this.n = null;
    this.detail = null;
    this.version += 1;
    this.root.hidden = true;
    this.root.replaceChildren();
  }

  async show(n: number): Promise<void> {
    if (n !== this.n) this.outside.hidden = true;
    this.n = n;
    const version = ++this.version;
    const [detail, map, image] = await Promise.all([
      get<Detail>(`detail/${n}`),
      this.store.map ? fullMap(n).catch(() => null) : Promise.resolve(null),
      imageAt(`view/${n}`).catch((error: Error) => error),
    ]);
    if (version !== this.version) return;
    this.detail = detail;
    this.map = oneOf(map);
    this.image = image instanceof Error ? null : image;
    this.truth = null;
    this.truthText.hidden = true;
    this.render(detail, image instanceof Error ? image.message : "");
    // asked for last, because the first answer lists the data set again
    const truth = await truthOf(n).catch((error: Error) => ({ reason: `the marked object cannot be outlined: ${error.message}`, everywhere: false }));
    this.actions.marked(n, truth);
    if (version !== this.version || !truth) return;
    this.truth = truth;
    this.draw();
  }

  // Whether the image stands among those that match; said where it does not.
  place(matches: boolean): void { this.outside.hidden = matches; }
  get isOutside(): boolean { return this.n !== null && !this.outside.hidden; }

  private className(index: number | null): string { return index === null ? "none" : (this.store.classes[index] ?? `class ${index}`); }

  private render(detail: Detail, missing: string): void {
    const target = detail.targets.find((one) => one.n === detail.n)!;
    const verdict = detail.correct === null ? "" : detail.off_object ? "correct, off-object" : detail.correct ? "correct" : "wrong";
    const bar = el("canvas", { className: "bar-canvas" });
    this.colours.bar(bar);
    const said = (name: string, value: string) => [el("dt", {}, name), el("dd", {}, foreign(value, 80))];
    const kept = this.root.scrollTop;
    this.further = [];
    this.root.replaceChildren(...nodes(
      el("div", { className: "detail-bar" },
        el("button", { type: "button", "aria-label": "Previous image", onclick: () => this.actions.step(-1) }, "←"),
        el("button", { type: "button", "aria-label": "Next image", onclick: () => this.actions.step(1) }, "→"),
        el("span", { className: "id" }, foreign(detail.id, 90)),
        el("button", { type: "button", "aria-label": "Close the image", onclick: this.actions.close }, "×")),
      this.outside,
      el("div", { className: "panes" }, this.image ? this.plain : null, this.canvas),
      missing ? el("p", { className: "small" }, `No image: ${clipped(missing, 300)}`) : null,
      this.map ? el("div", { className: "scale" }, el("span", {}, "0"), bar, el("span", {}, "1"),
        this.outlineText, this.truthText) : el("p", { className: "small" }, `No map: ${detail.status} `, this.truthText),
      el("div", { className: "own-controls" }, mirror("opacity", "Map opacity"), mirror("outline", "Outline"), mirror("truth", "Object")),
      detail.targets.length > 1 ? el("div", { className: "targets", role: "group", "aria-label": "Explained class" }, "Explained: ",
        ...detail.targets.map((one) => el("button", { type: "button", "aria-pressed": one.n === detail.n, onclick: () => this.actions.go(one.n) },
          foreign(this.className(one.target), 30), one.target === detail.label ? " (label)" : one.target === detail.prediction ? " (prediction)" : ""))) : null,
      el("dl", { className: "facts" },
        ...said("explained class", `${this.className(target.target)}${target.confidence === null ? "" : `, confidence ${figure(target.confidence)}`}`),
        ...said("prediction", this.className(detail.prediction)), ...said("label", this.className(detail.label)),
        ...(verdict ? said("outcome", verdict) : []),
        ...detail.clusters.flatMap((cluster) => said("cluster", this.store.clusters.find(({ name }) => name === cluster)?.title ?? cluster))),
      ...this.actions.extra(detail),
      ...detail.queues.map(({ queue, rank, reason }) => el("p", { className: "reason" }, el("b", {}, `${clipped(queue, 40)} #${rank}: `), clipped(reason, 400))),
      this.store.other ? this.second(detail.n) : null,
      this.store.blocks && this.map ? this.blocks(detail.n, this.store.blocks) : null,
      this.map && this.store.vectors.includes("map") ? this.similar(detail.n, "map", "Similar explanations") : null,
      this.store.vectors.includes("features") ? this.similar(detail.n, "features", "Similar images, by the model's features") : null,
      el("table", { className: "metrics" }, el("tbody", {}, ...detail.metrics.filter(({ value }) => value !== null).map(({ name, title, text }) =>
        el("tr", { title: name }, el("td", {}, title), el("td", { className: "n" }, text)))))));
    this.root.hidden = false;
    this.root.scrollTop = kept;
    this.draw();
  }

  // The same image in the second store: its map over the same image, and what that run said.
  private second(n: number): HTMLElement {
    const place = el("section", { className: "second" }, el("h3", {}, "Second store"), el("p", { className: "small" }, foreign(this.store.other, 80)));
    get<SecondRow | null>(`second/${n}`).then(async (row) => {
      if (!row) { place.append(el("p", {}, "The image is not in it.")); return; }
      const canvas = el("canvas", { className: "overlay", role: "img", "aria-label": "The second store's map over the image" });
      const difference = el("canvas", { className: "overlay difference", role: "img", "aria-label": "Where the two maps differ" });
      const found = row.status === "ok" ? oneOf(await secondMap(row.n)) : null, first = this.map;
      if (this.n !== n) return;
      if (found) this.compose(canvas, found);
      if (found && first) this.redrawn(() => {
        const context = this.sized(difference);
        this.grey(context);
        drawDifference(context, first, found, this.options.opacity());
        this.marks(context, null);
      });
      place.append(...nodes(found ? el("div", { className: "panes" }, canvas, first ? difference : null) : el("p", {}, `No map: ${row.status}`),
        found && first ? el("p", { className: "small" }, el("span", { className: "more" }, "orange"), ": the second map is stronger, ", el("span", { className: "less" }, "blue"),
          `: the first. The strongest ${100 * STRONGEST} % of both overlap by ${(100 * overlap(first, found)).toFixed(0)} % (intersection over union).`) : null,
        row.explained !== this.className(this.detail!.targets.find((one) => one.n === n)!.target) ? el("p", { className: "small" }, "The two maps explain different classes.") : null,
        el("dl", { className: "facts" }, el("dt", {}, "explained class"), el("dd", {}, foreign(row.explained, 40), row.confidence === null ? "" : `, confidence ${figure(row.confidence)}`),
          el("dt", {}, "prediction"), el("dd", {}, foreign(row.prediction, 40)))));
    }).catch((error: Error) => place.append(el("p", {}, error.message)));
    return place;
  }

  // The maps of the network's blocks, each over the image, where the method stored them.
  private blocks(n: number, { count, meaning }: { count: number; meaning: string }): HTMLElement {
    const place = el("div", { className: "similar" });
    const details = el("details", { "data-by": "blocks" }, el("summary", {}, `Maps of the ${counted(count, "block")}`), el("p", { className: "small" }, clipped(meaning, 200)), place);
    details.addEventListener("toggle", () => {
      if (!details.open || place.childElementCount) return;
      blockMaps(n).then(({ height, width, maps: found }) => {
        place.replaceChildren(...found.map((map, at) => {
          const canvas = el("canvas", { className: "overlay", role: "img", "aria-label": `Map of block ${at + 1} over the image` });
          if (map) this.compose(canvas, { map, height, width }, 0.5);
          return el("figure", {}, canvas, el("figcaption", {}, `block ${at + 1}`));
        }));
      }).catch((error: Error) => { place.textContent = error.message; });
    });
    return details;
  }

  // Asked for only when it is opened, because the first answer reads the maps of all rows.
  private similar(n: number, by: string, title: string): HTMLElement {
    const place = el("div", { className: "similar" }), said = el("p", { className: "small" });
    const details = el("details", { "data-by": by }, el("summary", {}, title), place, said);
    details.addEventListener("toggle", () => {
      if (!details.open || place.childElementCount) return;
      place.textContent = "…";
      post<Nearest>("nearest", { row: n, by }).then(async ({ rows: found, searched }) => {
        if (searched < this.store.images) said.textContent = `searched: ${searched.toLocaleString("en")} of ${counted(this.store.images, "image")}`;
        const { height, width, maps: pixels } = await maps(found.map((one) => one.n));
        place.replaceChildren(...found.map((one, at) => {
          const canvas = el("canvas", { "aria-hidden": "true" });
          const map = pixels[at];
          if (map) this.colours.draw(canvas, map, height, width);
          const image = el("img", { src: `api/thumbnail/${one.n}`, alt: "" });
          image.addEventListener("error", () => image.remove());
          return el("button", { type: "button", title: `similarity ${one.similarity.toFixed(2)}`, "aria-label": `Row ${one.n}, similarity ${one.similarity.toFixed(2)}`, onclick: () => this.actions.go(one.n) },
            el("span", { className: "picture" }, image, canvas), el("span", {}, one.similarity.toFixed(2)));
        }));
      }).catch((error: Error) => { place.textContent = error.message; });
    });
    return details;
  }

  // The picture again, after the opacity or the outline has changed.
  draw(): void {
    if (!this.detail) return;
    const ratio = this.image ? this.image.width / this.image.height : this.map ? this.map.width / this.map.height : 1;
    const width = ratio >= 1 ? SIDE : Math.round(SIDE * ratio), height = ratio >= 1 ? Math.round(SIDE / ratio) : SIDE;
    [this.canvas.width, this.canvas.height] = [width, height];
    this.sized(this.plain);
    const plain = this.plain.getContext("2d")!, context = this.canvas.getContext("2d")!;
    if (this.image) plain.drawImage(this.image, 0, 0, width, height);
    this.grey(context);
    if (this.map) this.overlay(context, this.map);
    this.marks(plain, this.map);
    this.marks(context, this.map);
    for (const draw of this.further) draw();
    const truth = this.options.truth() ? this.truth : null;
    const said = !truth ? "" : truth.path === undefined ? lines(truth.reason) : `blue: the object as marked (${truth.kind === "mask" ? "mask" : truth.count === 1 ? "1 box" : `${truth.count} boxes`})`;
    this.truthText.hidden = !said;
    this.truthText.textContent = said;
    this.outlineText.textContent = this.options.outline() ? `white: the strongest ${100 * STRONGEST} % of the pixels` : "map value";
    this.canvas.setAttribute("aria-label", `The map for ${this.className(this.detail.targets.find(({ n }) => n === this.detail!.n)!.target)} over the image`);
    this.plain.setAttribute("aria-label", "The image as the model sees it");
  }

  private grey(context: CanvasRenderingContext2D): void {
    if (!this.image) return;
    context.filter = this.options.opacity() > 0 ? "grayscale(1)" : "none";
    context.drawImage(this.image, 0, 0, context.canvas.width, context.canvas.height);
    context.filter = "none";
  }

  private overlay(context: CanvasRenderingContext2D, { map, height, width }: OneMap): void {
    const colours = document.createElement("canvas");
    this.colours.draw(colours, map, height, width, Math.max(1, SIDE / Math.max(height, width)));
    context.globalAlpha = this.image ? this.options.opacity() : 1;
    context.drawImage(colours, 0, 0, context.canvas.width, context.canvas.height);
    context.globalAlpha = 1;
  }

  // The outlines that are switched on.
  private marks(context: CanvasRenderingContext2D, map: OneMap | null): void {
    if (map && this.options.outline()) drawOutline(context, map.map, map.height, map.width);
    const truth = this.truth;
    if (truth && truth.path !== undefined && this.options.truth()) drawTruth(context, truth.path, truth.height, truth.width);
  }

  // A further map over the image; it follows opacity and outlines as the first one does.
  private compose(canvas: HTMLCanvasElement, map: OneMap, share = 1): void {
    this.redrawn(() => {
      const context = this.sized(canvas, share);
      this.grey(context);
      this.overlay(context, map);
      this.marks(context, map);
    });
  }

  private redrawn(draw: () => void): void {
    this.further.push(draw);
    draw();
  }

  private sized(canvas: HTMLCanvasElement, share = 1): CanvasRenderingContext2D {
    canvas.width = Math.max(1, Math.round(this.canvas.width * share));
    canvas.height = Math.max(1, Math.round(this.canvas.height * share));
    return canvas.getContext("2d")!;
  }
}

// A control of the bar above once more, where the image covers the bar.
function mirror(id: string, title: string): HTMLElement {
  const source = byId<HTMLInputElement>(id), { type, min, max, step, value, checked } = source;
  const copy = el("input", type === "range" ? { type, min, max, step, value } : { type, checked });
  copy.addEventListener("input", () => {
    source.value = copy.value;
    source.checked = copy.checked;
    source.dispatchEvent(new Event(type === "range" ? "input" : "change"));
  });
  return el("label", { className: `mirror-${id}` }, `${title} `, copy);
}

const oneOf = (pixels: MapPixels | null): OneMap | null => (pixels?.maps[0] ? { map: pixels.maps[0], height: pixels.height, width: pixels.width } : null);
