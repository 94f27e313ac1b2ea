"""Check a text against the facts that it is about: every number and every class name in it must be among them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from .facts import Facts
from .templates import Language

TOLERANCE = 0.01
"""Relative difference up to which a number is that of a fact."""
NUMBER = re.compile(r"(?<![\w.,])[-+−]?\d+(?:[.,]\d+)*(?:[eE][-+]?\d+)?(?!\w)\s*(%|per cent|percent)?")  # noqa: RUF001
LONGEST = 4_000
"""Characters of a text that is checked at all."""


def ungrounded_parts(text: str, facts: Facts, class_names: Sequence[str], language: Language) -> list[str]:
    """What the text says that the facts do not: numbers, words for numbers, and names of other classes.

    Args:
        text: To be checked.
        facts: What it may say.
        class_names: Of the whole data set.
        language: Whose decimal separator and words for numbers count.

    Returns:
        The parts as they stand in the text; empty for a grounded text.
    """
    if len(text) > LONGEST:
        return [f"{len(text)} characters"]
    if not text.strip():
        return ["no text"]
    rest, wrong = text, []
    known = {name.lower() for name in (*facts.names.values(), *facts.texts.values()) if name}
    # the longest first, because a name may lie in another, and all of them before numbers, because they may hold some
    for name in sorted({*known, *(name.lower() for name in class_names if name)}, key=lambda name: (-len(name), name)):
        shorter = re.sub(_as_word(name), " ", rest, flags=re.IGNORECASE)
        if shorter != rest and name not in known:
            wrong.append(name)
        rest = shorter
    wrong += [word for word in language.number_words if re.search(_as_word(word), rest, re.IGNORECASE)]
    for match in NUMBER.finditer(rest):
        if not _is_known(match, facts, language):
            wrong.append(match[0].strip())
    digits = re.sub(NUMBER, " ", rest)
    wrong += re.findall(r"\S*\d\S*", digits)  # such as 3x or v2: no number of ours
    return wrong


def checkable_names(names: Sequence[str], language: Language) -> tuple[str, ...]:
    """Names of classes and parts, less those that a language of heatlas says in its own sentences, such as `object` in English.

    A template with such a word does not mean the class. A user's language file is taken at its word.
    """
    if language.name.endswith(".toml"):
        return tuple(names)
    wording = " ".join([*(sentence.text for sentence in (*language.row, *language.label)), *language.places.values()])
    return tuple(name for name in names if not re.search(_as_word(name), wording, re.IGNORECASE))


def _is_known(match: re.Match[str], facts: Facts, language: Language) -> bool:
    number = match[0].removesuffix(match[1] or "").strip().replace("−", "-")  # noqa: RUF001
    other = "," if language.decimal == "." else "."
    if other in number or number.count(language.decimal) > 1:
        return False
    value = float(number.replace(",", "."))
    if match[1]:
        return any(_near(value / 100, share) for share in facts.shares.values())
    is_whole = language.decimal not in number and value in facts.counts.values()
    return is_whole or any(_near(value, share) for share in facts.shares.values())


def _near(value: float, share: float) -> bool:
    return math.isclose(value, share, rel_tol=TOLERANCE, abs_tol=1e-9)


def _as_word(text: str) -> str:
    return rf"(?<!\w){re.escape(text)}(?!\w)"
