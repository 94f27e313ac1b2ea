"""Reads a page of HTML as its tests need it."""

from __future__ import annotations

from html.parser import HTMLParser


class PageReader(HTMLParser):
    """Tags, attributes and text of a page, as a browser would take it apart."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._raw = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())
