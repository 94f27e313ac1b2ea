// Elements from values. Texts only ever become text nodes, so that nothing in the data is read as markup.

type Child = Node | string | null | undefined | false;

export function el<K extends keyof HTMLElementTagNameMap>(tag: K, values: Record<string, unknown> = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value as EventListener);
    else if (name in element && name !== "list") (element as unknown as Record<string, unknown>)[name] = value;
    else element.setAttribute(name, String(value));
  }
  element.append(...nodes(...children));
  return element;
}

export function svg(tag: string, values: Record<string, string | number> = {}, ...children: Node[]): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

export const byId = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;

// A text from data: what turns the direction of writing or controls a terminal is shown as its code.
export function harmless(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// The same for a message of several lines.
export const lines = (text: string): string => text.split("\n").map(harmless).join("\n");

export function clipped(text: string, longest = 120): string {
  const plain = harmless(text);
  if (plain.length <= longest) return plain;
  const tail = Math.floor(longest / 3);
  return `${plain.slice(0, longest - tail - 1)}…${plain.slice(-tail)}`;
}

export const foreign = (text: string, longest = 120): HTMLElement => el("bdi", {}, clipped(text, longest) || "(empty)");

export function figure(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

export function percent(part: number, whole: number): string {
  if (!whole) return "–";
  const value = (100 * part) / whole;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  if (value > 99.9 && value < 100) return "> 99.9 %";
  return `${(value > 0 && value < 1) || (value > 99 && value < 100) ? value.toFixed(1) : value.toFixed(0)} %`;
}

export const counted = (count: number, noun: string): string => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

// Those children that are there.
export const nodes = (...children: Child[]): (Node | string)[] => children.filter((child): child is Node | string => Boolean(child));
