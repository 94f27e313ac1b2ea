"""Checks and the digest of a listing: unique ids, and content that two runs can compare."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....errors import DataError

_DIGEST_ROWS = 65536
"""Rows hashed together; fixed, so that the digest does not depend on how the table is chunked."""


def check_unique_ids(listing: pa.Table) -> None:
    """Refuse a listing in which an id is missing or names two samples.

    Raises:
        DataError: Naming the id and both uris.
    """
    ids = listing["id"]
    if ids.null_count:
        row = pc.index(pc.is_null(ids), True).as_py()
        raise DataError(
            f"the sample {listing['uri'][row].as_py()!r} (row {row}) has no id; every sample needs a unique one"
        )
    if len(ids) < 2 or pc.all(pc.less(ids[:-1], ids[1:])).as_py():
        return
    order = pc.sort_indices(listing.select(["id"]), sort_keys=[("id", "ascending")])
    ordered = ids.take(order)
    place = pc.index(pc.equal(ordered[:-1], ordered[1:]), True).as_py()
    if place >= 0:
        first, second = sorted(order[place : place + 2].to_pylist())
        uris = [listing["uri"][row].as_py() for row in (first, second)]
        raise DataError(f"the id {ordered[place].as_py()!r} names two samples: {uris[0]!r} (row {first}) and {uris[1]!r} "
                        f"(row {second}); ids must be unique, so rename one or remove it")  # fmt: skip


def listing_digest(listing: pa.Table) -> str:
    """Sha256 (hex) over the logical content: column names, nulls and values, whatever the chunks and string widths."""
    digest = hashlib.sha256()
    names = sorted(listing.column_names)
    digest.update(repr((names, len(listing))).encode())
    for start in range(0, len(listing), _DIGEST_ROWS):
        rows = listing.slice(start, _DIGEST_ROWS)
        for name in names:
            _feed(digest, pa.concat_arrays(rows[name].chunks))
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, array: pa.Array) -> None:
    """Hash one array canonically: which slots are null, the lengths, the bytes; never what lies under a null."""
    digest.update(len(array).to_bytes(8, "little"))
    digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    kind = array.type
    if pa.types.is_null(kind):
        return
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _feed_numbers(digest, pc.list_value_length(array))
        _feed(digest, array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = pc.fill_null(array.cast(pa.large_string()), "")
        _feed_numbers(digest, pc.binary_length(texts))
        digest.update(_text_bytes(texts))
    else:
        _feed_numbers(digest, array)


def _feed_numbers(digest: hashlib._Hash, array: pa.Array) -> None:
    wide = pa.float64() if pa.types.is_floating(array.type) else pa.int64()
    digest.update(np.ascontiguousarray(pc.fill_null(array.cast(wide), 0).to_numpy(zero_copy_only=False)).tobytes())


def _text_bytes(texts: pa.Array) -> bytes:
    offsets, data = texts.buffers()[1:]
    if not len(texts) or data is None:
        return b""
    ends = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return data[int(ends[0]) : int(ends[-1])].to_pybytes()
