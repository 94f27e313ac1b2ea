"""Sentences from a language file: a TOML file with words for places and sentences with the conditions under which they are said."""

from __future__ import annotations

import os
import string
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UsageError, did_you_mean
from ..storage.location import bytes_of, locate
from .facts import CONDITIONS, OTHERS, SHARES, Facts
from .facts_of_rows import GRID

LANGUAGES = Path(__file__).parent / "languages"
LARGEST_BYTES = 200_000
DIGITS = 3
"""Significant digits of a number in a text: wrong by half a per cent at most."""


@dataclass(frozen=True)
class Sentence:
    """One sentence."""

    text: str
    """With placeholders such as `{confidence}`."""
    when: frozenset[str]
    """Conditions that must hold."""
    unless: frozenset[str]
    """Conditions none of which may hold."""

    def fits(self, facts: Facts) -> bool:
        return self.when <= facts.conditions and not self.unless & facts.conditions


@dataclass(frozen=True)
class Language:
    """How rows and classes are spoken of in one language."""

    name: str
    decimal: str
    """Decimal separator."""
    number_words: tuple[str, ...]
    """Words for numbers, which cannot be checked: a generated text that has one is not taken."""
    places: Mapping[str, str]
    row: tuple[Sentence, ...]
    label: tuple[Sentence, ...]
    """About a class of the data set."""

    def row_text(self, facts: Facts) -> str:
        """The sentences that fit the facts of a row, in the file's order."""
        return self._text(self.row, facts)

    def class_text(self, facts: Facts) -> str:
        """The sentences that fit the facts of a class."""
        return self._text(self.label, facts)

    def percent(self, share: float) -> str:
        """A share in per cent, such as `97.3 %`."""
        return f"{_significant(100 * share).replace('.', self.decimal)} %"

    def _text(self, sentences: Sequence[Sentence], facts: Facts) -> str:
        words = {name: self.percent(value) for name, value in facts.shares.items()}
        words |= {name: str(value) for name, value in facts.counts.items()}
        words |= {name: self.places[key] for name, key in facts.places.items()}
        words |= {**facts.names, **facts.texts}
        return " ".join(_filled(sentence.text, words) for sentence in sentences if sentence.fits(facts))


def load_language(name: str) -> Language:
    """A language that comes with heatlas, or a file of the user's.

    Args:
        name: Such as `en`, or the path or URI of a `.toml` file.

    Raises:
        UsageError: If there is no such language, or the file is not made as it must be.
    """
    if not name.endswith(".toml"):
        known = sorted(path.stem for path in LANGUAGES.glob("*.toml"))
        if name not in known:
            raise UsageError(
                f"there is no language {name!r}{did_you_mean(name, known)}; choose {', '.join(known)}, or give a .toml file"
            )
        return parse_language((LANGUAGES / f"{name}.toml").read_bytes(), name)
    try:
        data = bytes_of(*locate(os.path.expanduser(name)))
    except OSError as error:
        raise UsageError(f"cannot read --language {name}: {error}") from error
    return parse_language(data, name)


def parse_language(data: bytes, name: str) -> Language:
    """Check a language file.

    Raises:
        UsageError: Naming what is wrong in it.
    """
    if len(data) > LARGEST_BYTES:
        raise UsageError(f"--language {name} has {len(data):,} bytes; at most {LARGEST_BYTES:,} are read")
    try:
        content = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--language {name} is no TOML: {error}") from None
    places = content.get("places", {})
    if missing := [place for place in GRID if not isinstance(places.get(place), str)]:
        raise UsageError(f"--language {name} has no text for places.{missing[0]}")
    decimal = content.get("decimal", ".")
    if decimal not in (".", ","):
        raise UsageError(f"--language {name}: decimal must be '.' or ',', got {decimal!r}")
    words = content.get("number_words", [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UsageError(f"--language {name}: number_words must be a list of words")
    row, label = (_sentences(content.get(part), part, name) for part in ("row", "class"))
    return Language(name, decimal, tuple(words), places, row, label)


def _sentences(entries: Any, part: str, name: str) -> tuple[Sentence, ...]:
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"--language {name} has no [[{part}]] with sentences")
    sentences = []
    for entry in entries:
        text = entry.get("text") if isinstance(entry, dict) else None
        if not isinstance(text, str):
            raise UsageError(f"--language {name}: every [[{part}]] needs a text, got {entry!r}")
        if unknown := [field for field in _fields(text, name) if field not in (*SHARES[part], *OTHERS[part])]:
            hint = did_you_mean(unknown[0], (*SHARES[part], *OTHERS[part]))
            raise UsageError(
                f"--language {name}: {text!r} has the placeholder {unknown[0]!r}, which no [[{part}]] has{hint}"
            )
        sentences.append(
            Sentence(text, *(_conditions(entry.get(key, []), key, part, name) for key in ("when", "unless")))
        )
    return tuple(sentences)


def _conditions(listed: Any, key: str, part: str, name: str) -> frozenset[str]:
    """A condition that is misspelt would never hold, or always."""
    if not isinstance(listed, list) or not all(isinstance(condition, str) for condition in listed):
        raise UsageError(f"--language {name}: {key} must be a list of conditions, got {listed!r}")
    known = (*CONDITIONS[part], *(f"has_{share}" for share in SHARES[part]))
    if unknown := [condition for condition in listed if condition not in known]:
        raise UsageError(
            f"--language {name}: there is no condition {unknown[0]!r} of a [[{part}]]{did_you_mean(unknown[0], known)}"
        )
    return frozenset(listed)


def _fields(text: str, name: str) -> list[str]:
    """Names of the placeholders; nothing else of `str.format` is allowed, because it reaches into objects."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise UsageError(f"--language {name}: {text!r}: {error}") from None
    for _, field, form, conversion in parsed:
        if field is not None and (not field.isidentifier() or form or conversion):
            raise UsageError(
                f"--language {name}: {text!r} has the placeholder {field!r}; a placeholder is a name in braces"
            )
    return [field for _, field, _, _ in parsed if field is not None]


def _filled(text: str, words: Mapping[str, str]) -> str:
    for field in _fields(text, "file"):
        if field not in words:
            raise UsageError(f'the sentence {text!r} needs {field!r}, which this row lacks; add when = ["has_{field}"]')
    return text.format(**words)


def _significant(value: float) -> str:
    if value == 0:
        return "0"
    return np.format_float_positional(value, precision=DIGITS, unique=False, fractional=False, trim="-")
