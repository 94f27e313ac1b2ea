"""Numbers and foreign texts as a page shows them."""

from __future__ import annotations

from markupsafe import Markup, escape

from ..text import harmless

LONGEST_NAME = 120
MOST_DIGITS = 6
DASH, MINUS = "\u2013", "\u2212"


def named(text: object, longest: int = LONGEST_NAME) -> Markup:
    """A text from data, isolated from the direction of writing around it.

    What a browser would obey instead of showing (controls, marks that turn the direction) is written as `\\u202e`; the middle of a
    long text is left out.
    """
    shown = plain(text, longest)
    return Markup("<bdi>{}</bdi>").format(shown) if shown else Markup("<i>(empty)</i>")


def plain(text: object, longest: int = LONGEST_NAME) -> str:
    """As `named`, for places where there can be no markup."""
    return clipped(harmless(str(text), lines=False), longest)


def clipped(text: str, longest: int) -> str:
    """The text, or its two ends with `…` between them."""
    if len(text) <= longest:
        return text
    tail = longest // 3
    return f"{text[: longest - tail - 1]}…{text[-tail:]}"


def figure(value: float | None, digits: int = 3) -> str:
    """`0.0613`, `51.1`, `1,204`, `0`; a dash for nothing. Never rounds something to nothing."""
    if value is None:
        return DASH
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1000:
        text = f"{value:,.0f}"
    elif size >= 1:
        text = f"{value:.{max(0, digits - len(str(int(size))))}f}"
    elif size >= 1e-3:
        text = f"{value:.{digits - 1 if size >= 0.1 else digits}f}"
    else:
        text = f"{value:.1g}".replace("e-0", "e-")
    return text.replace("-", MINUS) if "e" not in text else text


def percent(share: float | None) -> str:
    """A share in [0, 1] as percent, never rounding something to nothing or nearly all to all."""
    if share is None:
        return DASH
    value = 100 * share
    if 0 < value < 0.1:
        return "< 0.1 %"
    if 99.9 < value < 100:
        return "> 99.9 %"
    return f"{value:.1f} %" if 0 < value < 1 or 99 < value < 100 else f"{value:.0f} %"


def between(low: float, high: float) -> str:
    """`0.384 to 0.421`, with as many digits as it takes to tell the ends apart."""
    for digits in range(3, MOST_DIGITS):
        first, last = figure(low, digits), figure(high, digits)
        if first != last:
            return f"{first} to {last}"
    return figure(low, MOST_DIGITS)


def percent_between(low: float, high: float) -> str:
    """`97 to 99.7 %`, as `between`."""
    return f"{between(100 * low, 100 * high)} %"


def amount(number: int, noun: str = "") -> Markup:
    """`1,204 images`, `1 image`; the number and its noun stay on one line."""
    text = f"{number:,}"
    return escape(f"{text} {noun}{'' if number == 1 else 's'}" if noun else text)
