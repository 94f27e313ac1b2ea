// One image, large: its map over it, what the model said, the metrics, and why it stands in a queue.
import { blockMaps, fullMap, get, maps, post, secondMap, type Detail, type MapPixels, type Nearest, type SecondRow, type Store, type Truth } from "./api";
import { clipped, counted, el, figure, foreign, nodes } from "./dom";
import { drawOutline, drawTruth, STRONGEST, type Colours } from "./colours";

const SIDE = 448;

export class DetailView {
  n: number | null = null;
  private image: ImageBitmap | null = null;
  private map: MapPixels | null = null;
  private truth: Truth | null = null;
  private truthText = el("span", { className: "truth-text small", hidden: true });
  private canvas = el("canvas", { className: "overlay", role: "img" });
  private plain = el("canvas", { className: "overlay plain", role: "img" });
  private version = 0;
  detail: Detail | null = null;

  constructor(private root: HTMLElement, private store: Store, private colours: Colours, private options: { opacity: () => number; outline: () => boolean; truth: () => boolean }, private actions: { close: () => void; step: (by: number) => void; extra: (detail: Detail) => HTMLElement[]; go: (n: number) => void }) {}

  close(): void {
    this.n = null;
    this.detail = null;
    this.version += 1;
    this.root.hidden = true;
    this.root.replaceChildren();
  }

  async show(n: number): Promise<void> {
    this.n = n;
    const version = ++this.version;
    const [detail, map, image] = await Promise.all([
      get<Detail>(`detail/${n}`),
      this.store.map ? fullMap(n).catch(() => null) : Promise.resolve(null),
      fetch(`api/view/${n}`).then(async (response) => (response.ok ? createImageBitmap(await response.blob()) : Promise.reject(new Error((await response.json()).error)))).catch((error: Error) => error),
    ]);
    if (version !== this.version) return;
    this.detail = detail;
    this.map = map?.maps[0] ? map : null;
    this.image = image instanceof Error ? null : image;
    this.truth = null;
    this.truthText.hidden = true;
    this.render(detail, image instanceof Error ? image.message : "");
    // asked for last, because the first answer lists the data set again
    const truth = await get<Truth | null>(`truth/${n}`).catch(() => null);
    if (version !== this.version || !truth) return;
    this.truth = truth;
    this.draw();
  }

  private className(index: number | null): string { return index === null ? "none" : (this.store.classes[index] ?? `class ${index}`); }

  private render(detail: Detail, missing: string): void {
    const target = detail.targets.find((one) => one.n === detail.n)!;
    const verdict = detail.correct === null ? "" : detail.off_object ? "correct, off-object" : detail.correct ? "correct" : "wrong";
    const bar = el("canvas", { className: "bar-canvas" });
    this.colours.bar(bar);
    const said = (name: string, value: string) => [el("dt", {}, name), el("dd", {}, foreign(value, 80))];
    const kept = this.root.scrollTop;
    this.root.replaceChildren(...nodes(
      el("div", { className: "detail-bar" },
        el("button", { type: "button", "aria-label": "Previous image", onclick: () => this.actions.step(-1) }, "←"),
        el("button", { type: "button", "aria-label": "Next image", onclick: () => this.actions.step(1) }, "→"),
        el("span", { className: "id" }, foreign(detail.id, 90)),
        el("button", { type: "button", "aria-label": "Close the image", onclick: this.actions.close }, "×")),
      el("div", { className: "panes" }, this.image ? this.plain : null, this.canvas),
      missing ? el("p", { className: "small" }, `No image: ${clipped(missing, 300)}`) : null,
      this.map ? el("div", { className: "scale" }, el("span", {}, "0"), bar, el("span", {}, "1"),
        el("span", { className: "small" }, this.options.outline() ? `white: the strongest ${100 * STRONGEST} % of the pixels` : "map value"), this.truthText) : el("p", { className: "small" }, `No map: ${detail.status}`),
      detail.targets.length > 1 ? el("div", { className: "targets", role: "group", "aria-label": "Explained class" }, "Explained: ",
        ...detail.targets.map((one) => el("button", { type: "button", "aria-pressed": one.n === detail.n, onclick: () => void this.show(one.n) },
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
      const found = row.status === "ok" ? await secondMap(row.n) : null;
      if (found?.maps[0]) this.compose(canvas, found);
      place.append(...nodes(found?.maps[0] ? el("div", { className: "panes" }, canvas) : el("p", {}, `No map: ${row.status}`),
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
          if (map) this.compose(canvas, { height, width, maps: [map] });
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
    for (const canvas of [this.plain, this.canvas]) { canvas.width = width; canvas.height = height; }
    const plain = this.plain.getContext("2d")!, context = this.canvas.getContext("2d")!;
    if (this.image) plain.drawImage(this.image, 0, 0, width, height);
    this.grey(context);
    if (this.map) this.overlay(context, this.map);
    const pixels = this.map?.maps[0];
    if (this.map && pixels && this.options.outline()) drawOutline(plain, pixels, this.map.height, this.map.width);
    const truth = this.options.truth() ? this.truth : null;
    for (const each of truth ? [plain, context] : []) drawTruth(each, truth!.path, truth!.height, truth!.width);
    this.truthText.hidden = !truth;
    this.truthText.textContent = truth ? `blue: the object as marked (${truth.kind === "mask" ? "mask" : counted(truth.count, "box").replace("boxs", "boxes")})` : "";
    this.canvas.setAttribute("aria-label", `The map for ${this.className(this.detail.targets.find(({ n }) => n === this.detail!.n)!.target)} over the image`);
    this.plain.setAttribute("aria-label", "The image as the model sees it");
  }

  private grey(context: CanvasRenderingContext2D): void {
    if (!this.image) return;
    context.filter = this.options.opacity() > 0 ? "grayscale(1)" : "none";
    context.drawImage(this.image, 0, 0, context.canvas.width, context.canvas.height);
    context.filter = "none";
  }

  private overlay(context: CanvasRenderingContext2D, map: MapPixels): void {
    const pixels = map.maps[0];
    if (!pixels) return;
    const heat = document.createElement("canvas");
    this.colours.draw(heat, pixels, map.height, map.width, Math.max(1, SIDE / Math.max(map.height, map.width)));
    context.globalAlpha = this.image ? this.options.opacity() : 1;
    context.drawImage(heat, 0, 0, context.canvas.width, context.canvas.height);
    context.globalAlpha = 1;
    if (this.options.outline()) drawOutline(context, pixels, map.height, map.width);
  }

  private compose(canvas: HTMLCanvasElement, map: MapPixels): void {
    canvas.width = this.canvas.width;
    canvas.height = this.canvas.height;
    const context = canvas.getContext("2d")!;
    this.grey(context);
    this.overlay(context, map);
  }
}
