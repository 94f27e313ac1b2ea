"""Which image a name means: its id, its id without the suffix, or its base name where that is one image's only. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...errors import DataError
from ..text import counted


def without_suffix(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)


def base_name(name: str) -> str:
    return PurePosixPath(without_suffix(name)).name


@dataclass(frozen=True)
class NameTable:
    """The ids of a data set by everything that may name them."""

    ids: frozenset[str]
    by_stem: Mapping[str, list[str]]
    by_base: Mapping[str, list[str]]

    @classmethod
    def of(cls, ids: Iterable[str]) -> NameTable:
        every = list(ids)
        return cls(frozenset(every), grouped(every, without_suffix), grouped(every, base_name))

    def id_of(self, name: str) -> str | None:
        """The image that a name means; None for none.

        Raises:
            DataError: If it may mean several.
        """
        if name in self.ids:
            return name
        for known in (
            self.by_stem.get(name),
            self.by_stem.get(without_suffix(name)),
            self.by_base.get(base_name(name)),
        ):
            if known is None:
                continue
            if len(known) > 1:
                raise DataError(
                    f"the map {name!r} may be of {counted(len(known), 'image')} ({', '.join(known[:3])}); name it by the whole id"
                )
            return known[0]
        return None


def grouped(ids: Iterable[str], name_of: Callable[[str], str]) -> dict[str, list[str]]:
    """Ids by what `name_of` makes of them."""
    groups: dict[str, list[str]] = {}
    for identity in ids:
        groups.setdefault(name_of(identity), []).append(identity)
    return groups
