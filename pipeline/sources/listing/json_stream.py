"""The elements of a JSON object's lists one after another, with their place in the file: a COCO file of gigabytes passes through
a window of megabytes.

The bytes are decoded as Latin-1, one character each, so that places in the text are places in the file; whatever is not
ASCII is decoded once more, as the UTF-8 that it is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import IO, Any

WINDOW = 8 << 20
"""Bytes that are read at once."""
_BLANK = " \t\r\n"


def elements(file: IO[bytes], lists: Collection[str]) -> Iterator[tuple[str, int, int, Any]]:
    """Every element of the top-level lists named `lists`: the list's name, offset and length in bytes, and the element.

    Raises:
        ValueError: If the file holds no JSON object, or one that is cut short, or something else than a list where one is wanted.
    """
    window = _Window(file)
    if window.take() != "{":
        raise ValueError("it does not begin with {")
    if window.peek() == "}":
        return
    while True:
        key, _, _ = window.value()
        if not isinstance(key, str) or window.take() != ":":
            raise ValueError(f"no key at byte {window.offset}")
        if key in lists:
            if window.take() != "[":
                raise ValueError(f"{key!r} must be a list")
            yield from ((key, *element) for element in _in_list(window))
        else:
            window.value()
        if (mark := window.take()) == "}":
            return
        if mark != ",":
            raise ValueError(f"no comma at byte {window.offset - 1}")


def _in_list(window: _Window) -> Iterator[tuple[int, int, Any]]:
    if window.peek() == "]":
        window.take()
        return
    while True:
        value, offset, length = window.value()
        yield offset, length, value
        if (mark := window.take()) == "]":
            return
        if mark != ",":
            raise ValueError(f"no comma at byte {window.offset - 1}")


class _Window:
    """A part of the file as text, moving forward."""

    def __init__(self, file: IO[bytes]):
        self._file, self._text, self._place, self._before = file, "", 0, 0
        self._decode = json.JSONDecoder().raw_decode

    @property
    def offset(self) -> int:
        """Of the next character."""
        return self._before + self._place

    def peek(self) -> str:
        """The next character that is not blank."""
        while True:
            while self._place < len(self._text):
                if self._text[self._place] not in _BLANK:
                    return self._text[self._place]
                self._place += 1
            if not self._more():
                raise ValueError(f"it is cut short at byte {self.offset}")

    def take(self) -> str:
        character = self.peek()
        self._place += 1
        return character

    def value(self) -> tuple[Any, int, int]:
        """The next value, its offset and its length in bytes."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._place)
                if end < len(self._text) or not self._more():  # a number could go on
                    break
            except json.JSONDecodeError as error:
                if not self._more():
                    raise ValueError(f"{error.msg} at byte {self._before + error.pos}") from None
        offset, length = self.offset, end - self._place
        piece = self._text[self._place : end]
        self._place = end
        return (value if piece.isascii() else json.loads(piece.encode("latin-1"))), offset, length

    def _more(self) -> bool:
        """Read on, at least as much as is there already, so that a long value is not tried often; False at the end of the file."""
        data = self._file.read(max(WINDOW, len(self._text) - self._place))
        if not data:
            return False
        self._before += self._place
        self._text = self._text[self._place :] + data.decode("latin-1")
        self._place = 0
        return True
