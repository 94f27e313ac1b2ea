"""Which of the data set's own columns go into the store, and under which names: `columns.extra`.

`all` (the default) takes every one, `NAME` takes one, `NAME=NEW` takes it under another name, `none` takes none. What `all` takes and the
store has a column of that name already goes in as `data_NAME`, so that a manifest with a `width` needs no option.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

from ....errors import DataError, did_you_mean
from ...shards import EXTRA

ALL = "all"
PREFIX = "data_"


def wants_extra(chosen: Sequence[str]) -> bool:
    """Whether any of them is wanted."""
    return list(chosen) not in ([], ["none"])


def choose_extra(listing: pa.Table, chosen: Sequence[str], taken: Collection[str]) -> pa.Table:
    """The listing with the chosen columns only, under their names in the store.

    Args:
        listing: As a source gives it.
        chosen: The setting.
        taken: Names that the store's own columns have or may get.

    Raises:
        DataError: For a column that is not there, or a name that is taken or given twice.
    """
    there = [name.removeprefix(EXTRA) for name in listing.column_names if name.startswith(EXTRA)]
    names = _names(chosen, there)
    ours = [name for name in listing.column_names if not name.startswith(EXTRA)]
    used = {name.casefold(): f"column {name!r}" for name in taken}
    for name, new in names.items():
        if new == name and name not in chosen and new.casefold() in used:
            new = names[name] = PREFIX + name
        if (other := used.get(new.casefold())) is not None:
            raise DataError(
                f"the data set's column {name!r} would be {new!r} in the store, which has a {other} already; rename it with "
                f"--columns.extra all,{name}=NEW, choose others with --columns.extra NAME,NAME, or take none with --columns.extra none"
            )
        used[new.casefold()] = f"column {new!r} of the data set"
    table = listing.select([*ours, *(EXTRA + name for name in names)])
    return table.rename_columns([*ours, *(EXTRA + new for new in names.values())])


def _names(chosen: Sequence[str], there: Sequence[str]) -> dict[str, str]:
    """New name by name, in the data set's order."""
    if not wants_extra(chosen):
        return {}
    renamed: dict[str, str] = {}
    for choice in chosen:
        if choice == ALL:
            continue
        name, _, new = (choice, "", choice) if choice in there else choice.partition("=")
        if name not in there:
            have = f"it has {', '.join(map(repr, there))}" if there else "it has no columns of its own"
            raise DataError(
                f"--columns.extra names {name!r}, which the data set does not have{did_you_mean(name, there)}; {have}"
            )
        if not new.strip():
            raise DataError(f"--columns.extra {choice} gives no new name; write {name}=NEW")
        renamed[name] = new
    return {name: renamed.get(name, name) for name in there if ALL in chosen or name in renamed}
