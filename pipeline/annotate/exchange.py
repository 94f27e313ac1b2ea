"""Push suggestions to an annotation tool's format, and pull answers back as decisions; the data set is never edited."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import StorageError, UsageError
from ..decisions.decision import Decision, checked
from ..decisions.record import record_decisions
from ..export.place import staged
from ..pictures.stored_images import reader_of
from ..storage.atomic_write import put
from ..storage.location import bytes_of, child, locate, names_in
from ..text import counted
from .coco_tasks import coco_bytes, coco_image_ids, cvat_bytes, json_of_zip, read_coco_answers
from .fiftyone_tasks import read_fiftyone_answers, write_fiftyone_tasks
from .label_studio import label_config, label_studio_bytes, read_label_studio_answers
from .suggest import LIMIT, make_suggestions
from .suggestion import KINDS, RELABEL, Answer, Suggestion
from .table_tasks import read_table_answers, table_bytes

if TYPE_CHECKING:
    from ..store.reader import StoreReader

Tool = Literal["coco", "label-studio", "cvat", "fiftyone", "csv", "parquet"]
TOOLS: tuple[str, ...] = get_args(Tool)
ENDINGS: Mapping[str, str] = {
    "coco": ".json",
    "label-studio": ".json",
    "cvat": ".zip",
    "csv": ".csv",
    "parquet": ".parquet",
}
"""What the file of a tool ends in; FiftyOne has a folder."""
FOLDER = "annotate"
SCHEMA = pa.schema(
    [
        ("suggestion_id", pa.string()), ("id", pa.string()), ("uri", pa.string()), ("kind", pa.string()), ("target", pa.int32()), ("proposal", pa.string()),
        ("mask", pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])),
    ]
)  # fmt: skip
"""What was pushed, in `STORE/annotate/pushed.parquet`."""
PUSHED = "pushed.parquet"


@dataclass(frozen=True)
class PushedSuggestions:
    """What was written for a tool."""

    uri: str
    suggestions: int
    images: int
    by_kind: Mapping[str, int]
    skipped: Mapping[str, str]
    """Why a kind was not made."""
    unread: int = 0
    """Images that could not be read and are left out (FiftyOne)."""


@dataclass(frozen=True)
class PulledAnswers:
    """What came back."""

    decisions: tuple[Decision, ...]
    """As recorded."""
    unchanged: int
    """Suggestions that came back as they were sent, from tools that do not say whether a person confirmed them; not recorded unless asked for."""
    removed: int
    """Suggestions that are no longer there; nothing is recorded for them."""


def push_suggestions(
    atlas: StoreReader,
    tool: str,
    to: str,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    limit: int = LIMIT,
    overwrite: bool = False,
) -> PushedSuggestions:
    """Write suggestions for a tool, and remember in the store what was sent.

    Args:
        atlas: The store.
        tool: One of `TOOLS`.
        to: Local file (its ending is `ENDINGS[tool]`), or folder for FiftyOne; Label Studio's interface is written beside it, as `.xml`.
        kinds: Of suggestions, out of `KINDS`.
        limit: Most suggestions of each kind.
        overwrite: Whether an older push at the place may be replaced.

    Raises:
        UsageError: For an unknown tool or kind, a wrong ending, a place that is taken, or if there is nothing to suggest.
        StorageError: If it cannot be written.
    """
    check_tool(tool, to)
    suggestions, skipped = make_suggestions(atlas, kinds, limit=limit)
    unread, names = 0, atlas.class_names
    with staged(to, "folder" if tool == "fiftyone" else "file", {"store": atlas.uri}, overwrite=overwrite) as path:
        if tool == "fiftyone":
            unread = write_fiftyone_tasks(suggestions, path, reader_of(atlas.run))
        else:
            path.write_bytes(_WRITERS[tool](suggestions, names))
    if tool == "label-studio":
        put(os.path.splitext(to)[0] + ".xml", label_config(names).encode())
    _remember(atlas, suggestions)
    return PushedSuggestions(
        to,
        len(suggestions),
        len({it.id for it in suggestions}),
        Counter(it.kind for it in suggestions),
        skipped,
        unread,
    )


def pull_answers(
    atlas: StoreReader,
    tool: str,
    source: str,
    *,
    accept_unchanged: bool = False,
    who: str | None = None,
    round: int | None = None,
) -> PulledAnswers:
    """Read what a tool made of the suggestions and record it as decisions.

    Args:
        atlas: The store that was pushed from.
        tool: One of `TOOLS`.
        source: The file or folder that the tool exported.
        accept_unchanged: Whether suggestions that came back as they were sent count as confirmed. COCO, CVAT and FiftyOne do not say whether
            a person looked at them; Label Studio and tables do.
        who: Of answers without a name; None for the user of this process.
        round: Number of the round of review.

    Raises:
        UsageError: For an unknown tool, a file of another form, images or classes that the store does not have, masks that do not fit.
        StorageError: If the decisions cannot be recorded.
    """
    check_tool(tool, source)
    pushed = pushed_before(atlas)
    answers, images = _read(tool, source, _ids(pushed))
    sent = {(row["id"], row["proposal"]): row for row in pushed}
    chosen, unchanged = [], 0
    for answer in answers:
        row = sent.get((answer.id, answer.called))
        if not answer.by_person and row is not None and row["mask"] == answer.mask:
            unchanged += 1
            if not accept_unchanged:
                continue
        chosen.append(_decision(answer, row))
    there = {(answer.id, answer.called) for answer in answers}
    removed = sum(key not in there and key[0] in images for key in sent)
    return PulledAnswers(record_decisions(atlas, chosen, who=who, round=round) if chosen else (), unchanged, removed)


def pushed_text(pushed: PushedSuggestions) -> str:
    """What was written, as text."""
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in pushed.by_kind.items())
    lines = [
        f"pushed {counted(pushed.suggestions, 'suggestion')} for {counted(pushed.images, 'image')} ({kinds}): {pushed.uri}"
    ]
    lines += [f"{kind}: none, {why}" for kind, why in pushed.skipped.items()]
    if pushed.unread:
        lines.append(f"{counted(pushed.unread, 'image')} could not be read any more, so left out")
    return "\n".join(lines)


def pulled_text(pulled: PulledAnswers, accepted: bool) -> str:
    """What came back, as text."""
    kinds = Counter(decision.kind for decision in pulled.decisions)
    lines = [f"recorded {counted(len(pulled.decisions), 'decision')}" + (": " + ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common()) if kinds else "")]  # fmt: skip
    if pulled.unchanged and not accepted:
        lines.append(
            f"{counted(pulled.unchanged, 'suggestion')} came back unchanged and not confirmed, so not recorded; --accept-unchanged takes them as confirmed"
        )
    if pulled.removed:
        lines.append(f"{counted(pulled.removed, 'suggestion')} removed in the tool; nothing is recorded for them")
    return "\n".join(lines)


def check_tool(tool: str, place: str) -> None:
    """Refuse an unknown tool, or a place that is not of its kind.

    Raises:
        UsageError: Naming the choices.
    """
    if tool not in TOOLS:
        raise UsageError(f"unknown tool {tool!r}; choose {', '.join(TOOLS)}")
    if tool in ENDINGS and not place.lower().endswith(ENDINGS[tool]):
        raise UsageError(f"{place!r} must end in {ENDINGS[tool]} for {tool}")


def pushed_before(atlas: StoreReader) -> list[dict]:
    """What was pushed from a store, as rows of `SCHEMA`.

    Raises:
        UsageError: If nothing was.
        StorageError: If it cannot be read.
    """
    fs, path = locate(child(atlas.uri, FOLDER))
    if PUSHED not in names_in(fs, path):
        raise UsageError(f"nothing was pushed from {atlas.uri}; run `heatlas annotate push {atlas.uri} ...` first")
    try:
        return pq.read_table(pa.BufferReader(bytes_of(fs, f"{path}/{PUSHED}"))).cast(SCHEMA).to_pylist()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise StorageError(f"cannot read {atlas.uri}/{FOLDER}/{PUSHED}: {error}; push again") from error


def _remember(atlas: StoreReader, suggestions: Sequence[Suggestion]) -> None:
    """Add to what was pushed before; the newest of a suggestion counts."""
    try:
        rows = {row["suggestion_id"]: row for row in pushed_before(atlas)}
    except UsageError:
        rows = {}
    rows |= {
        it.suggestion_id: {"suggestion_id": it.suggestion_id, "id": it.id, "uri": it.uri, "kind": it.kind, "target": it.target, "proposal": it.proposal, "mask": it.mask}
        for it in suggestions
    }  # fmt: skip
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows.values()), schema=SCHEMA), buffer, compression="zstd")
    put(child(atlas.uri, f"{FOLDER}/{PUSHED}"), buffer.getvalue())


def _ids(pushed: Sequence[Mapping]) -> dict[str, str]:
    """Ids by URI, and by base name where that is unique."""
    uris = {row["uri"]: row["id"] for row in pushed}
    times = Counter(os.path.basename(uri) for uri in uris)
    return {
        **{os.path.basename(uri): identity for uri, identity in uris.items() if times[os.path.basename(uri)] == 1},
        **uris,
    }


def _read(tool: str, source: str, ids: Mapping[str, str]) -> tuple[list[Answer], set[str]]:
    """Answers, and the images in which a suggestion that is not there was removed."""
    if tool == "fiftyone":
        answers = read_fiftyone_answers(source)
    elif tool in ("csv", "parquet"):
        return read_table_answers(source), set()
    else:
        fs, path = locate(source)
        try:
            data = bytes_of(fs, path)
        except OSError as error:
            raise UsageError(f"cannot read {source}: {error}") from error
        if tool == "label-studio":
            return read_label_studio_answers(data, source, ids), set()
        data = json_of_zip(data, source) if tool == "cvat" else data
        return read_coco_answers(data, source, ids), coco_image_ids(data, source, ids)
    return answers, {answer.id for answer in answers}


def _decision(answer: Answer, row: Mapping | None) -> Decision:
    relabel = answer.called.startswith(RELABEL)
    identity = answer.suggestion_id or (row["suggestion_id"] if row else None)
    return checked(
        Decision(
            answer.id, "relabel" if relabel else answer.called, target=row["target"] if row else None,
            label_name=answer.called.removeprefix(RELABEL) if relabel else None, mask=answer.mask, who=answer.who, when=answer.when,  # pyright: ignore[reportArgumentType]
            why=f"suggestion {identity}" if identity else None, source="annotate",
        )
    )  # fmt: skip


_WRITERS: Mapping[str, Callable[[Sequence[Suggestion], Sequence[str]], bytes]] = {
    "coco": coco_bytes,
    "cvat": cvat_bytes,
    "label-studio": label_studio_bytes,
    "csv": lambda suggestions, _: table_bytes(suggestions, ".csv"),
    "parquet": lambda suggestions, _: table_bytes(suggestions, ".parquet"),
}
