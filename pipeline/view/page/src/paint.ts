// Paint a region on the whole source image: what the model uses although it does not belong to the class (shortcut), or what belongs to it (core).
import { imageAt } from "./api";
import { clipped, el } from "./dom";

export interface SentMask { width: number; height: number; bits: string }
export type MaskKind = "shortcut" | "core";
const LONGEST = 560;

export async function paintMask(n: number, id: string): Promise<{ kind: MaskKind; mask: SentMask } | null> {
  const image = await imageAt(`source/${n}`);
  const scale = Math.min(1, LONGEST / Math.max(image.width, image.height)) * (Math.max(image.width, image.height) < 280 ? 280 / Math.max(image.width, image.height) : 1);
  const width = Math.max(1, Math.round(image.width * scale)), height = Math.max(1, Math.round(image.height * scale));
  const mask = el("canvas", { width, height, className: "mask", "aria-label": "Painted region" });
  const picture = el("canvas", { width, height });
  picture.getContext("2d")!.drawImage(image, 0, 0, width, height);
  const context = mask.getContext("2d")!;
  const size = el("input", { type: "range", min: "4", max: "120", value: "32", "aria-label": "Width of the brush in pixels" });
  const erase = el("input", { type: "checkbox" });
  let last: [number, number] | null = null;
  const at = (event: PointerEvent): [number, number] => {
    const box = mask.getBoundingClientRect();
    return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * height) / box.height];
  };
  const stroke = (event: PointerEvent) => {
    if (!last) return;
    const now = at(event);
    context.globalCompositeOperation = erase.checked ? "destination-out" : "source-over";
    context.strokeStyle = "#ff2d95";
    context.lineCap = "round";
    context.lineWidth = Number(size.value);
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(now[0] + 0.01, now[1]);
    context.stroke();
    last = now;
  };
  mask.addEventListener("pointerdown", (event) => { mask.setPointerCapture(event.pointerId); last = at(event); stroke(event); });
  mask.addEventListener("pointermove", stroke);
  mask.addEventListener("pointerup", () => { last = null; });
  const dialog = el("dialog", { className: "paint", "aria-label": "Paint a region" });
  return new Promise((resolve) => {
    const close = (kind: MaskKind | null) => { dialog.close(); dialog.remove(); resolve(kind && { kind, mask: bitsOf(context, width, height) }); };
    dialog.oncancel = () => close(null);
    dialog.append(el("h2", {}, "Paint a region of the image"), el("p", { className: "small" }, clipped(id, 80)),
      el("div", { className: "canvases" }, picture, mask),
      el("p", {}, el("label", {}, "Brush ", size), " ", el("label", {}, erase, " erase")),
      el("p", {}, el("button", { type: "button", title: "The model should not use this", onclick: () => close("shortcut") }, "Record as shortcut"), " ",
        el("button", { type: "button", title: "This belongs to the class", onclick: () => close("core") }, "Record as core"), " ", el("button", { type: "button", onclick: () => close(null) }, "Cancel")));
    document.body.append(dialog);
    dialog.showModal();
  });
}

function bitsOf(context: CanvasRenderingContext2D, width: number, height: number): SentMask {
  const pixels = context.getImageData(0, 0, width, height).data;
  const bytes = new Uint8Array(Math.ceil((width * height) / 8));
  for (let at = 0; at < width * height; at++) if (pixels[at * 4 + 3] > 127) bytes[at >> 3] |= 128 >> (at & 7);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return { width, height, bits: btoa(text) };
}
