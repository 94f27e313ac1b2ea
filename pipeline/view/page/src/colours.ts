// Maps in colour: the same perceptually uniform scale as in reports, and the outline of a map's strongest region.

export interface OneMap { map: Uint8Array; height: number; width: number }

export const STRONGEST = 0.2; // share of the pixels inside the outline
export const TRUTH = "#35e0ff"; // colour of the marked object

export class Colours {
  readonly table = new Uint8ClampedArray(256 * 3);

  constructor(stops: [number, number, number][]) {
    for (let value = 0; value < 256; value++) {
      const place = (value / 255) * (stops.length - 1);
      const low = Math.min(Math.floor(place), stops.length - 2);
      for (let channel = 0; channel < 3; channel++) {
        this.table[value * 3 + channel] = stops[low][channel] + (place - low) * (stops[low + 1][channel] - stops[low][channel]);
      }
    }
  }

  // The map enlarged first and coloured then: between two values lies a value, not a mixture of two colours.
  draw(canvas: HTMLCanvasElement, map: Uint8Array, height: number, width: number, scale = 1): void {
    const rows = Math.max(1, Math.round(height * scale)), columns = Math.max(1, Math.round(width * scale));
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d")!;
    const pixels = context.createImageData(columns, rows);
    const values = enlarged(map, height, width, rows, columns);
    for (let at = 0; at < values.length; at++) {
      const value = values[at];
      pixels.data[at * 4] = this.table[value * 3];
      pixels.data[at * 4 + 1] = this.table[value * 3 + 1];
      pixels.data[at * 4 + 2] = this.table[value * 3 + 2];
      pixels.data[at * 4 + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
  }

  bar(canvas: HTMLCanvasElement): void {
    const ramp = new Uint8Array(256).map((_, at) => at);
    this.draw(canvas, ramp, 1, 256);
  }
}

export function enlarged(map: Uint8Array, height: number, width: number, rows: number, columns: number): Uint8Array {
  if (rows === height && columns === width) return map;
  const found = new Uint8Array(rows * columns);
  for (let y = 0; y < rows; y++) {
    const v = Math.min(Math.max(((y + 0.5) * height) / rows - 0.5, 0), height - 1);
    const top = Math.floor(v), bottom = Math.min(top + 1, height - 1), fy = v - top;
    for (let x = 0; x < columns; x++) {
      const u = Math.min(Math.max(((x + 0.5) * width) / columns - 0.5, 0), width - 1);
      const left = Math.floor(u), right = Math.min(left + 1, width - 1), fx = u - left;
      const upper = map[top * width + left] * (1 - fx) + map[top * width + right] * fx;
      const lower = map[bottom * width + left] * (1 - fx) + map[bottom * width + right] * fx;
      found[y * columns + x] = upper * (1 - fy) + lower * fy;
    }
  }
  return found;
}

// The value that the strongest share of the pixels reach; 0 pixels are never inside.
export function threshold(map: Uint8Array, share = STRONGEST): number {
  const counts = new Uint32Array(256);
  for (const value of map) counts[value] += 1;
  let inside = 0;
  for (let value = 255; value > 0; value--) {
    inside += counts[value];
    if (inside >= share * map.length) return value;
  }
  return 1;
}

// The object that the data set marks, as an SVG path in pixels of the network's input.
export function drawTruth(context: CanvasRenderingContext2D, path: string, height: number, width: number): void {
  const { width: columns, height: rows } = context.canvas;
  const edge = new Path2D();
  edge.addPath(new Path2D(path), new DOMMatrix([columns / width, 0, 0, rows / height, 0, 0]));
  context.setLineDash([]);
  context.strokeStyle = "#002b36";
  context.lineWidth = Math.max(4, columns / 110);
  context.stroke(edge);
  context.strokeStyle = TRUTH;
  context.lineWidth = Math.max(2, columns / 220);
  context.stroke(edge);
}

export const MORE = [255, 122, 26], LESS = [64, 132, 255]; // where the second map is stronger, or the first

// How two maps differ, as colour over what is there: the more, the less transparent.
export function drawDifference(context: CanvasRenderingContext2D, first: OneMap, second: OneMap, opacity: number): void {
  const { width, height } = context.canvas;
  const a = enlarged(first.map, first.height, first.width, height, width), b = enlarged(second.map, second.height, second.width, height, width);
  const layer = new OffscreenCanvas(width, height), own = layer.getContext("2d")!, pixels = own.createImageData(width, height);
  for (let at = 0; at < a.length; at++) {
    const difference = b[at] - a[at];
    pixels.data.set(difference > 0 ? MORE : LESS, at * 4);
    pixels.data[at * 4 + 3] = Math.abs(difference);
  }
  own.putImageData(pixels, 0, 0);
  context.globalAlpha = opacity;
  context.drawImage(layer, 0, 0);
  context.globalAlpha = 1;
}

// Share of the pixels among the strongest of either map that are among those of both.
export function overlap(first: OneMap, second: OneMap): number {
  const height = Math.max(first.height, second.height), width = Math.max(first.width, second.width);
  const inside = ({ map, height: rows, width: columns }: OneMap) => {
    const values = enlarged(map, rows, columns, height, width), limit = threshold(values);
    return values.map((value) => (value >= limit ? 1 : 0));
  };
  const a = inside(first), b = inside(second);
  let both = 0, either = 0;
  for (let at = 0; at < a.length; at++) { both += a[at] & b[at]; either += a[at] | b[at]; }
  return either ? both / either : 0;
}

export function drawOutline(context: CanvasRenderingContext2D, map: Uint8Array, height: number, width: number): void {
  const { width: columns, height: rows } = context.canvas;
  const limit = threshold(map);
  const values = enlarged(map, height, width, rows, columns);
  const inside = (x: number, y: number) => x >= 0 && y >= 0 && x < columns && y < rows && values[y * columns + x] >= limit;
  const edge = new Path2D();
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      if (!inside(x, y)) continue;
      if (!inside(x - 1, y)) { edge.moveTo(x, y); edge.lineTo(x, y + 1); }
      if (!inside(x + 1, y)) { edge.moveTo(x + 1, y); edge.lineTo(x + 1, y + 1); }
      if (!inside(x, y - 1)) { edge.moveTo(x, y); edge.lineTo(x + 1, y); }
      if (!inside(x, y + 1)) { edge.moveTo(x, y + 1); edge.lineTo(x + 1, y + 1); }
    }
  }
  context.strokeStyle = "#000";
  context.lineWidth = Math.max(3, columns / 120);
  context.stroke(edge);
  context.strokeStyle = "#fff";
  context.lineWidth = Math.max(1.4, columns / 260);
  context.stroke(edge);
}
