// Requests to the server; every address is relative to the page's own, which holds the token.
import { tableFromIPC } from "@uwdata/flechette";

export interface Column { name: string; title: string; text: string; low: number; high: number; bins: number; open: boolean }
export interface Named { name: string; rows: number; title?: string }
export interface Store {
  version: string; uri: string; model: string; method: string; methods: string[]; rows: number; images: number;
  classes: string[]; confidence: string; columns: Column[]; outcomes: string[]; off_object: string; statuses: Named[];
  queues: Named[]; clusters: Named[]; map: [number, number] | null; colours: [number, number, number][];
  decisions: boolean; other: string; relations: string[]; notes: string[]; vectors: string[]; embeddings: string[]; blocks: { count: number; meaning: string } | null;
}
export interface Totals { rows: number; images: number; judged: number; correct: number; off_object: number }
export interface ClassRow { label: number; rows: number; judged: number; correct: number; off_object: number; confidence: number | null }
export interface Selected { totals: Totals; histograms: Record<string, number[]>; classes?: ClassRow[] }
export interface Row {
  n: number; id: string; label: number | null; prediction: number | null; target: number | null; status: string;
  correct: boolean | null; off_object: boolean; decision: string | null; new_label: string | null; [metric: string]: unknown;
}
export interface Detail {
  n: number; id: string; label: number | null; prediction: number | null; status: string; correct: boolean | null; off_object: boolean;
  targets: { n: number; target: number | null; confidence: number | null; status: string }[];
  metrics: { name: string; title: string; value: number | null; text: string }[];
  queues: { queue: string; rank: number; reason: string }[];
  clusters: string[];
  decisions: { kind: string; label_name: string | null; who: string | null }[];
}
export interface Nearest { rows: { n: number; similarity: number }[]; searched: number }
// The marked object, or why there is no outline of it
export interface Truth { kind: "mask" | "boxes"; count: number; height: number; width: number; path: string; reason?: undefined; everywhere?: undefined }
export interface NoTruth { reason: string; everywhere: boolean; path?: undefined }
export interface Act { batch: string; kind: string; label: string | null; count: number; who: string; when: string; id: string; row: number | null }
export interface Points {
  n: Int32Array; x: Float32Array; y: Float32Array; label: Int32Array; correct: Int8Array; off_object: Int8Array; confidence: Float32Array;
  explained: number | null;
}
export interface MapPixels { height: number; width: number; maps: (Uint8Array | null)[] }

export class Refused extends Error {}

function asked(path: string, options: RequestInit = {}): Promise<Response> {
  return fetch(`api/${path}`, options).catch((error: Error) => {
    throw error.name === "AbortError" ? error : new Refused("the server does not answer; is `heatlas view` still running?");
  });
}

async function checked(response: Response): Promise<Response> {
  if (response.ok) return response;
  let text = `${response.status} ${response.statusText}`;
  try { text = (await response.json()).error ?? text; } catch { /* not JSON: the status says it */ }
  throw new Refused(text);
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await checked(await asked(path, { signal }))).json();
}

function posted(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return asked(path, { method: "POST", headers, body: JSON.stringify(body), signal }).then(checked);
}

export async function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  return (await posted(path, body, signal)).json();
}

export async function postArrow(path: string, body: unknown, signal?: AbortSignal): Promise<{ rows: Row[]; total: number }> {
  const response = await posted(path, body, signal);
  const table = tableFromIPC(new Uint8Array(await response.arrayBuffer()));
  return { rows: table.toArray() as unknown as Row[], total: Number(response.headers.get("x-heatlas-total") ?? table.numRows) };
}

async function pixels(response: Response): Promise<MapPixels> {
  const height = Number(response.headers.get("x-heatlas-height")), width = Number(response.headers.get("x-heatlas-width"));
  const present = response.headers.get("x-heatlas-present") ?? "";
  const bytes = new Uint8Array(await response.arrayBuffer());
  const size = height * width;
  return { height, width, maps: [...present].map((there, at) => (there === "1" ? bytes.subarray(at * size, (at + 1) * size) : null)) };
}

export async function maps(rows: number[], signal?: AbortSignal): Promise<MapPixels> {
  return pixels(await posted("maps", { rows }, signal));
}

async function mapsAt(path: string): Promise<MapPixels> { return pixels(await checked(await asked(path))); }

export const fullMap = (n: number): Promise<MapPixels> => mapsAt(`map/${n}`);
export const secondMap = (n: number): Promise<MapPixels> => mapsAt(`second_map/${n}`);
export const blockMaps = (n: number): Promise<MapPixels> => mapsAt(`blocks/${n}`);
export const classMean = (label: number): Promise<MapPixels> => mapsAt(`class_mean/${label}`);
export const truthOf = (n: number): Promise<Truth | NoTruth | null> => get(`truth/${n}`);

export async function imageAt(path: string): Promise<ImageBitmap> {
  return createImageBitmap(await (await checked(await asked(path))).blob());
}

// A file to save, and what the server calls it.
export async function download(path: string): Promise<{ blob: Blob; name: string }> {
  const response = await posted(path, {});
  return { blob: await response.blob(), name: response.headers.get("x-heatlas-name") ?? path };
}

export interface SecondRow { n: number; method: string; explained: string; prediction: string; confidence: number | null; status: string }

export async function embedding(kind: string): Promise<Points> {
  const response = await posted("embedding", { kind });
  const explained = response.headers.get("x-heatlas-explained");
  const columns = tableFromIPC(new Uint8Array(await response.arrayBuffer())).toColumns();
  return { ...(columns as unknown as Points), explained: explained ? Number(explained) : null };
}

export async function embeddingMatches(kind: string, filter: unknown): Promise<Uint8Array> {
  return new Uint8Array(await (await posted("embedding_matches", { kind, filter })).arrayBuffer());
}
