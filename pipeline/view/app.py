"""Answer the page's requests: JSON in, JSON, Arrow or pictures out. What may ask at all is decided by `guard`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...errors import HeatlasError, SampleError, UsageError
from .class_means import class_mean_map
from .decision_book import MOST_AT_ONCE, DecisionBook, Written, painted_mask
from .description import describe_store
from .detail import image_detail
from .embeddings import Embeddings
from .filters import RowFilter, parse_filter
from .ground_truth import GroundTruth
from .guard import BodyTooLarge
from .images import MOST_MAPS, MapPixels, RowImages
from .manifest_download import download_manifest
from .row_vectors import FEATURES, FeatureVectors, MapVectors, VectorSample
from .second_store import SecondStore
from .selection import MOST_ROWS, Selections
from .similar import nearest_rows
from .stored_blocks import BlockColumn, block_maps
from .view_rows import ViewRows

ASSETS = Path(__file__).parent / "assets"
FILES = {
    "": ("index.html", "text/html"),
    "view.js": ("view.js", "text/javascript"),
    "view.css": ("view.css", "text/css"),
}
"""What can be asked for by name; nothing else of the disk is reachable."""
ARROW = "application/vnd.apache.arrow.stream"
Asked = Mapping[str, Any]


class ViewApp:
    """The endpoints over one store."""

    def __init__(
        self,
        table: ViewRows,
        images: RowImages,
        book: DecisionBook,
        second: SecondStore | None = None,
        *,
        trust_code: bool = False,
    ):
        self.table = table
        self.images = images
        self.book = book
        self.second = second
        self.truth = GroundTruth(table, images, trust_code=trust_code)
        self.blocks = BlockColumn.of(table.atlas)
        self.samples: dict[str, VectorSample] = {}
        if "map" in table.atlas.metadata:
            self.samples["map"] = VectorSample(table, MapVectors(images))
        if FeatureVectors.present(table):
            self.samples[FEATURES] = VectorSample(table, FeatureVectors(table, images.columns, images))
        self.embeddings = Embeddings(table, self.samples)
        self.selections = Selections(table)
        self.selections.histograms(RowFilter(), tuple(table.axes))  # what every page asks first

    def starlette(self) -> Starlette:
        """The ASGI application; wrap it in `LoopbackGuard`."""
        posts: dict[str, Callable[[Asked], Response]] = {
            "select": self.select, "rows": self.rows, "maps": self.maps, "sql": self.sql,
            "position": self.position, "decide": self.decide, "undo": self.undo, "manifest": self.manifest,
            "nearest": self.nearest, "embedding": self.embedding, "embedding_matches": self.embedding_matches,
        }  # fmt: skip
        gets: dict[str, Callable[[int], Response]] = {
            "thumbnail": self.thumbnail, "view": self.view, "map": self.map, "detail": self.detail,
            "source": self.source, "changes": self.changes,
            "truth": self.ground_truth, "blocks": self.block_maps, "class_mean": self.class_mean,
            "second": self.second_row, "second_map": self.second_map,
        }  # fmt: skip
        routes = [Route("/" + name, _file(name), methods=["GET"]) for name in FILES]
        routes.append(Route("/api/store", _answer(lambda request: self.store()), methods=["GET"]))
        routes.append(Route("/api/latest_act", _answer(lambda request: self.latest_act()), methods=["GET"]))
        routes += [Route(f"/api/{name}", _posted(answer), methods=["POST"]) for name, answer in posts.items()]
        routes += [
            Route(
                f"/api/{name}/{{n:int}}",
                _answer(lambda request, answer=answer: answer(request.path_params["n"])),
                methods=["GET"],
            )
            for name, answer in gets.items()
        ]
        handlers = {HeatlasError: _refused, BodyTooLarge: _too_large}
        return Starlette(routes=routes, exception_handlers=handlers)  # pyright: ignore[reportArgumentType]

    def store(self) -> Response:
        return JSONResponse(
            {
                **describe_store(
                    self.table, self.selections, decisions=True, other=self.second.uri if self.second else ""
                ),
                "vectors": list(self.samples),
                "embeddings": list(self.embeddings.kinds),
                "blocks": {"count": self.blocks.shape[0], "meaning": self.blocks.meaning} if self.blocks else None,
            }
        )

    def select(self, asked: Asked) -> Response:
        """Counts of what matches: totals, histograms of the columns named, classes."""
        chosen = self._filter(asked)
        columns = asked.get("columns") or []
        if not isinstance(columns, list):
            raise UsageError("columns must be a list of names")
        answer: dict[str, Any] = {
            "totals": self.selections.totals(chosen),
            "histograms": self.selections.histograms(chosen, columns),
        }
        if asked.get("classes"):
            answer["classes"] = self.selections.classes(chosen)
        return JSONResponse(answer)

    def rows(self, asked: Asked) -> Response:
        """Some rows of the order asked for, as Arrow; the header says how many there are."""
        order = self._order(asked)
        start, count = _whole(asked, "start", 0), min(_whole(asked, "count", 100), MOST_ROWS)
        table = self.selections.records(order[start : start + count].tolist())
        return _arrow(table, {"x-heatlas-total": str(len(order))})

    def position(self, asked: Asked) -> Response:
        """Where a row stands in the order asked for; null where it does not match."""
        return JSONResponse({"position": self.selections.position(self._order(asked), _whole(asked, "row", 0))})

    def maps(self, asked: Asked) -> Response:
        """Low-resolution maps of rows, a byte a pixel."""
        return _pixels(self.images.maps(_numbers(asked, MOST_MAPS)))

    def sql(self, asked: Asked) -> Response:
        """The answer to one SELECT as Arrow."""
        query = asked.get("query")
        if not isinstance(query, str):
            raise UsageError("query must be text")
        return _arrow(self.table.select(query), {})

    def thumbnail(self, n: int) -> Response:
        return Response(
            self.images.thumbnail(n), media_type="image/webp", headers={"cache-control": "private, max-age=3600"}
        )

    def view(self, n: int) -> Response:
        return Response(self.images.view(n), media_type="image/webp")

    def map(self, n: int) -> Response:
        return _pixels(self.images.map(n))

    def detail(self, n: int) -> Response:
        return JSONResponse(image_detail(self.table, n))

    def source(self, n: int) -> Response:
        """The whole source image, reduced."""
        data, _ = self.images.source(n)
        return Response(data, media_type="image/webp")

    def nearest(self, asked: Asked) -> Response:
        """Rows whose maps or features are most similar to those of one row."""
        by = asked.get("by")
        if by not in self.samples:
            raise UsageError(
                f"by must be one of {', '.join(self.samples) or 'nothing: this store has no maps'}, got {by!r}"
            )
        return JSONResponse(nearest_rows(self.samples[str(by)], _whole(asked, "row", 0)))

    def embedding(self, asked: Asked) -> Response:
        """The points of an embedding as Arrow; the headers say of how many rows they are, and what their plane holds."""
        kind = str(asked.get("kind"))
        explained = self.embeddings.get(kind).explained
        headers = {"x-heatlas-explained": "" if explained is None else f"{explained:.4f}"}
        return _arrow(self.embeddings.table(kind), headers)

    def embedding_matches(self, asked: Asked) -> Response:
        """For every point of an embedding a byte: 1 where its row matches the filter, its own region left out."""
        numbers = self.embeddings.get(str(asked.get("kind"))).numbers
        matching = self.selections.matching(replace(self._filter(asked), region=None))
        return Response(np.isin(numbers, matching).tobytes(), media_type="application/octet-stream")

    def ground_truth(self, n: int) -> Response:
        """The outline of the object that the data set marks, or why there is none; null where nothing is marked."""
        return JSONResponse(self.truth.outline(n))

    def block_maps(self, n: int) -> Response:
        """Maps of the network's blocks, a byte a pixel."""
        return _pixels(block_maps(self.blocks, self.images.columns, self.images, n))

    def class_mean(self, label: int) -> Response:
        """Mean map of a class, a byte a pixel."""
        mean, _ = class_mean_map(self.table, self.images, label)
        pixels = (mean * 255).round().astype("uint8")
        return _pixels(MapPixels(pixels.tobytes(), mean.shape[0], mean.shape[1], (True,)))

    def second_row(self, n: int) -> Response:
        """The same image in the second store; null where it is not there."""
        rows = self.table.ask("SELECT id, target FROM items WHERE n = ?", [n])
        if self.second is None or not rows:
            return JSONResponse(None)
        return JSONResponse(self.second.row_of(rows[0]["id"], self.table.rows.class_name(rows[0]["target"])))

    def second_map(self, n: int) -> Response:
        """The map of a row of the second store."""
        if self.second is None:
            raise UsageError("there is no second store; start with --compare")
        return _pixels(self.second.images.map(n))

    def decide(self, asked: Asked) -> Response:
        """Record one decision about rows, or about all that match a filter."""
        if "filter" in asked:
            chosen = self._filter(asked)
            counted = self.selections.totals(chosen)["images"]
            if (said := asked.get("count")) is not None and said != counted:
                raise UsageError(
                    f"{counted:,} images match now, not {said!r} as the page said; look again and confirm anew"
                )
            numbers = self.selections.order(chosen).tolist()
        else:
            numbers = _numbers(asked, MOST_AT_ONCE)
        rows = self.selections.keys(numbers)
        mask = None
        if asked.get("mask") is not None:
            if len(numbers) != 1:
                raise UsageError(f"a painted mask belongs to one image, got {len(numbers)}")
            mask = painted_mask(asked["mask"], self.images.source_size(numbers[0]))
        texts = {name: _optional_text(asked, name) for name in ("label", "why")}
        return _written(
            self.book.decide(rows, str(asked.get("kind")), label_name=texts["label"], why=texts["why"], mask=mask)
        )

    def undo(self, asked: Asked) -> Response:
        """Take back one act of deciding."""
        return _written(self.book.undo(str(asked.get("batch"))))

    def latest_act(self) -> Response:
        """The latest act of deciding under this name that still holds; null without one."""
        return JSONResponse(self.book.latest_act())

    def changes(self, since: int) -> Response:
        """What was decided after a version, by whichever page or process."""
        return JSONResponse(self.book.changes(since))

    def manifest(self, asked: Asked) -> Response:
        """The data set with the decisions applied, to download."""
        name, data, kind = download_manifest(self.table.atlas)
        return Response(data, media_type=kind, headers={"x-heatlas-name": name})

    def _filter(self, asked: Asked) -> RowFilter:
        chosen = parse_filter(asked.get("filter", {}), tuple(self.table.axes))
        if chosen.second and self.second is None:
            raise UsageError("there is no second store; start with --compare")
        if chosen.region is not None:
            self.embeddings.get(chosen.region.kind)  # its points are what the region is looked for in
        return chosen

    def _order(self, asked: Asked):
        sort, descending, session = asked.get("sort", ""), asked.get("descending", False), asked.get("session", "")
        if not isinstance(sort, str) or not isinstance(descending, bool) or not isinstance(session, str):
            raise UsageError("sort must be the name of a column, descending true or false")
        return self.selections.order(self._filter(asked), sort, descending=descending, session=session[:64])


def _whole(asked: Asked, name: str, default: int) -> int:
    value = asked.get(name, default)
    if type(value) is not int or not 0 <= value < 2**53:
        raise UsageError(f"{name} must be a whole number from 0 on, got {value!r}")
    return value


def _numbers(asked: Asked, most: int) -> list[int]:
    numbers = asked.get("rows")
    if not isinstance(numbers, list) or len(numbers) > most or not all(type(n) is int for n in numbers):
        raise UsageError(f"rows must be a list of at most {most:,} row numbers")
    return numbers


def _optional_text(asked: Asked, name: str) -> str | None:
    value = asked.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{name} must be text, got {value!r}")
    return value or None


def _written(written: Written) -> Response:
    return JSONResponse({"batch": written.batch, "count": written.count, "version": written.version})


def _posted(answer: Callable[[Asked], Response]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        try:
            asked = json.loads(await request.body())
        except ValueError:
            raise UsageError("the body must be JSON") from None
        if not isinstance(asked, dict):
            raise UsageError("the body must be a JSON object")
        return await run_in_threadpool(answer, asked)

    return endpoint


def _answer(answer: Callable[[Request], Response]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(answer, request)

    return endpoint


def _file(name: str) -> Callable[[Request], Any]:
    path, kind = FILES[name]

    async def endpoint(request: Request) -> Response:
        return Response((ASSETS / path).read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})

    return endpoint


def _arrow(table: pa.Table, headers: dict[str, str]) -> Response:
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return Response(buffer.getvalue(), media_type=ARROW, headers=headers)


def _pixels(maps: MapPixels) -> Response:
    headers = {
        "x-heatlas-height": str(maps.height),
        "x-heatlas-width": str(maps.width),
        "x-heatlas-present": "".join("1" if there else "0" for there in maps.present),
    }
    return Response(maps.data, media_type="application/octet-stream", headers=headers)


async def _refused(request: Request, error: HeatlasError) -> Response:
    status = 404 if isinstance(error, SampleError) else 400 if isinstance(error, UsageError) else 500
    return JSONResponse({"error": str(error)}, status)


async def _too_large(request: Request, error: BodyTooLarge) -> Response:
    return JSONResponse({"error": "the request is too large"}, 413)
