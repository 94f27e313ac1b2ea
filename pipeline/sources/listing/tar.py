"""WebDataset tars: `x.jpg`, `x.cls`, `x.json` beside each other in a tar are one sample.

Ids are `TAR/KEY`: the tar's path relative to the folder or pattern, and the members' common name up to the first dot of its
base. The image is the member whose suffix is one of an image (or is `columns.image`, such as `left.jpg`), the label is the
text of `.cls` (or `.cls.json`) or else what `.json` has under `label`, or the folder of the member where no tar has either, a mask is `.mask.png` or `.seg.png`, boxes stand in `.json`. All other
keys of `.json`, and `.txt`, are columns of the data set's own. A tar is read once from end to end, images jumped over.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from ....errors import DataError
from ..reading.container_uri import range_uri
from .columns import check_mapping
from .folder import IMAGE_SUFFIXES
from .label_columns import USUAL
from .nested_folders import folder_label, is_split, path_below_root
from .options import Listed, SourceOptions
from .place import Place, find_place
from .plain_values import ROWS_AT_ONCE, GrowingColumns, concat_columns
from .table import BOXES, make_listing
from .tar_index import Member, key_and_suffix, members

TEXTS = ("cls", "cls.json", "json", "txt")
"""Suffixes of members that are read while listing."""
LONGEST_LABEL = 60
"""Characters of a text that could be a label rather than a caption."""
_USUAL_SUFFIXES = ("index", "idx", "id", "class.txt", "label.txt", "lbl", "y")
"""Other members in which people keep labels, besides the usual names of columns."""
_TARS_AT_ONCE = 8


def list_tars(data: str, options: SourceOptions) -> Listed:
    """The listing of one tar, of those directly in a folder, or of those that a pattern names.

    Raises:
        DataError: If a tar is compressed, damaged or cut short, two images have one key, or a `.json` is none.
    """
    place = find_place(data)
    paths = _tars(place)
    with ThreadPoolExecutor(_TARS_AT_ONCE, thread_name_prefix="tar") as pool:
        tars = list(pool.map(lambda path: _read_tar(place, path, options), paths))
    tables, others = [table for table, _, _ in tars if len(table)], [rest for table, rest, _ in tars if len(table)]
    if not tables:
        raise DataError(f"{data} holds no images; a sample is a member such as 0001.jpg, beside 0001.cls or 0001.json")
    table = pa.concat_tables(tables)
    rows = [len(table) for table in tables]
    columns = {name: table[name] for name in table.column_names}
    own, notes, folders = concat_columns(others, rows), [], False
    if columns["label"].null_count == len(table):
        labels, notes = _other_labels(columns["id"].to_pylist(), own, options)
        folders = labels is not None
        if labels is None and not notes:
            notes = _unread_labels(own, set().union(*(suffixes for _, _, suffixes in tars)))
        columns["label"] = columns["label"] if labels is None else pa.chunked_array([pa.array(labels, pa.string())])
    return Listed(make_listing(columns, data, own), folders=folders, container_shards=True, notes=tuple(notes))


def _other_labels(
    ids: Sequence[str], own: Mapping[str, Any], options: SourceOptions
) -> tuple[list[str | None] | None, list[str]]:
    """Labels of tars without `.cls` and without labels in `.json`: the folders of the members, where these are class folders; and notes."""
    below = [path_below_root(identity) for identity in ids]
    labels = [folder_label(path, options.folder_label) for path in below]
    names, inner = set(labels) - {None}, {folder_label(path, "last") for path in below} - {None}
    if options.folder_label is not None and names:
        return labels, [f"the {options.folder_label} folders inside of the tars are taken for labels"]
    if None not in labels and len(names) > 1 and not all(map(is_split, map(str, names))):
        return labels, ["the folders inside of the tars are taken for labels"]
    if len(inner) > 1 and inner != names:
        few = ", ".join(map(repr, sorted(map(str, inner))[:3]))
        return None, [
            f"the images have no labels; if the innermost folders of the tars ({few}) have them, say --labels.folder last"
        ]
    texts = own.get("txt")
    if (
        texts is not None
        and texts.null_count == 0
        and all(len(str(text)) <= LONGEST_LABEL for text in texts.to_pylist())
    ):
        return None, ["the images have no labels; if the members .txt have them, say --columns.label txt"]
    return None, []


def _unread_labels(own: Mapping[str, Any], suffixes: set[str]) -> list[str]:
    """What to say where a key of the `.json` or a member is called like a label and is not read as one."""
    usual = [
        *(name for name in own if name.casefold() in {*USUAL, "label"}),
        *sorted(suffixes & {*USUAL, *_USUAL_SUFFIXES}),
    ]
    return [f"the images have no labels; if {usual[0]!r} has them, say --columns.label {usual[0]}"] if usual else []


def _tars(place: Place) -> list[str]:
    if not place.is_folder:
        return list(place.paths)
    names = sorted(name for name, is_folder in place.names().items() if name.endswith(".tar") and not is_folder)
    if not names:
        raise DataError(f"there is no .tar in {place.origin}; give the folder that holds them, or a pattern such as {place.origin}/*/*.tar")  # fmt: skip
    return [f"{place.path.rstrip('/')}/{name}" for name in names]


def _read_tar(
    place: Place, path: str, options: SourceOptions
) -> tuple[pa.Table, Mapping[str, pa.ChunkedArray], set[str]]:
    """The samples of one tar, the data set's own columns, and the suffixes of all members."""
    mapping = check_mapping(options.columns)
    origin, file = place.relative(path), place.uri(path)
    label_suffix = mapping["label"].lower().lstrip(".")
    wanted = {*(TEXTS if options.extra else TEXTS[:-1]), label_suffix}
    inside = members(place.fs, path, origin, lambda name: key_and_suffix(name)[1].lower() in wanted)
    rows, tables = _empty(), []
    described = GrowingColumns(but=[mapping["label"], mapping["boxes"]])
    suffixes: set[str] = set()
    for key, group in _samples(inside, origin):
        suffixes |= group.keys()
        image = _image(group, options.columns.get("image"), key, origin)
        if image is None:
            continue
        facts = _facts(group, key, origin)
        mask = next(
            (group[suffix] for suffix in (f"{mapping['mask']}.png", "mask.png", "seg.png") if suffix in group), None
        )
        rows["id"].append(f"{origin}/{key}")
        rows["uri"].append(range_uri(image.offset, image.size, file))
        rows["label"].append(_label(group, label_suffix, facts.get(mapping["label"]), key, origin))
        rows["boxes"].append(_boxes(facts.get(mapping["boxes"]), key, origin))
        rows["mask_uri"].append(mask and range_uri(mask.offset, mask.size, file))
        if options.extra:
            described.add(facts | ({"txt": _decoded(group["txt"])} if "txt" in group and label_suffix != "txt" else {}))
        if len(rows["id"]) == ROWS_AT_ONCE:
            tables.append(_table(rows))
            rows = _empty()
    return pa.concat_tables([*tables, _table(rows)]), described.columns(), suffixes


def _empty() -> dict[str, list[Any]]:
    return {"id": [], "uri": [], "label": [], "boxes": [], "mask_uri": []}


def _table(rows: Mapping[str, list[Any]]) -> pa.Table:
    return pa.table(
        {name: pa.array(values, BOXES if name == "boxes" else pa.string()) for name, values in rows.items()}
    )


def _samples(inside: Iterator[Member], origin: str) -> Iterator[tuple[str, dict[str, Member]]]:
    """Members with the same key that follow each other, by suffix.

    Raises:
        DataError: If one name is there twice, or the members of a key do not stand together.
    """
    seen: set[str] = set()
    for key, group in itertools.groupby(inside, key=lambda member: key_and_suffix(member.name)[0]):
        if key in seen:
            raise DataError(f"the members {key}.* of {origin} do not follow each other, so they are no WebDataset; write the tar with sorted names")  # fmt: skip
        seen.add(key)
        by_suffix: dict[str, Member] = {}
        for member in group:
            suffix = key_and_suffix(member.name)[1].lower()
            if suffix in by_suffix:
                raise DataError(f"the member {member.name!r} is twice in {origin}; remove one")
            by_suffix[suffix] = member
        yield key, by_suffix


def _image(group: Mapping[str, Member], wanted: str | None, key: str, origin: str) -> Member | None:
    if wanted is not None:
        return group.get(wanted.lower().lstrip("."))
    images = [suffix for suffix in group if f".{suffix}" in IMAGE_SUFFIXES]
    if not images:  # such as `x.left.jpg`, unless it is the mask
        images = [suffix for suffix in group if f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES and not suffix.startswith(("mask.", "seg."))]  # fmt: skip
    if len(images) > 1:
        raise DataError(
            f"{origin} has several images for {key!r}: {', '.join(images)}; choose with --columns.image {images[0]}"
        )
    return group[images[0]] if images else None


def _facts(group: Mapping[str, Member], key: str, origin: str) -> dict[str, Any]:
    if "json" not in group:
        return {}
    try:
        facts = json.loads(group["json"].text or b"")
    except ValueError as error:
        raise DataError(f"{key}.json in {origin} is not JSON: {error}") from error
    if not isinstance(facts, dict):
        raise DataError(f"{key}.json in {origin} must be a JSON object, it is {str(facts)[:60]!r}")
    return facts


def _label(group: Mapping[str, Member], suffix: str, described: Any, key: str, origin: str) -> str | None:
    if suffix in group:  # a member that --columns.label names, such as `txt`
        label: Any = _decoded(group[suffix]).strip()
    elif "cls" in group:
        label = _decoded(group["cls"]).strip()
    elif "cls.json" in group:
        label = _class_in_json(group["cls.json"], key, origin)
    else:
        label = described
    return None if label is None or label == "" else str(label)


def _class_in_json(member: Member, key: str, origin: str) -> Any:
    """The class in a member such as `3`, `"ant"` or `{"label": 3}`."""
    try:
        value = json.loads(member.text or b"")
    except ValueError as error:
        raise DataError(f"{key}.cls.json in {origin} is not JSON: {error}") from error
    value = value.get("label", value.get("cls")) if isinstance(value, dict) else value
    if isinstance(value, list | dict | bool) or value is None:
        raise DataError(f"{key}.cls.json in {origin} must be a class index or name, it is {str(value)[:60]!r}")
    return value


def _decoded(member: Member) -> str:
    return (member.text or b"").decode("utf-8", "replace")


def _boxes(value: Any, key: str, origin: str) -> Any:
    try:
        if pa.array([value], BOXES) is not None and all(len(box) == 4 and None not in box for box in value or ()):
            return value
    except (pa.ArrowException, TypeError):
        pass
    raise DataError(
        f"the boxes in {key}.json of {origin} must be lists [[x0, y0, x1, y1], ...] in pixels, they are {value!r}"
    )
