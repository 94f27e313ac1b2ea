"""Steps of tests that drive the page of `heatlas view` in a browser."""

from __future__ import annotations

import time

from heatlas.pipeline.view.serve import ViewServer

from .browser import Page

READY = "document.documentElement.dataset.ready === '1'"
PATIENCE_SECONDS = 30.0


def opened(page: Page, server: ViewServer, hash_: str = "") -> Page:
    page.open("about:blank")  # so that nothing of the last page comes late
    page.complaints.clear()
    page.requests.clear()
    page.open(server.url + hash_)
    until(page, READY)
    return page


def until(page: Page, script: str) -> None:
    """Wait until a JavaScript expression is true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not page.run(script):
        assert time.monotonic() < end, f"never true: {script}; the page says {page.complaints}"
        time.sleep(0.05)


def shown_rows(page: Page) -> int:
    return int(page.run("document.getElementById('totals').dataset.rows"))


def brush(page: Page, name: str, first: float, last: float) -> None:
    """Drag over a histogram, from and to a share of its width."""
    box = page.run(
        f"(() => {{ const facet = [...document.querySelectorAll('.facet')].find((one) => one.querySelector('code')?.textContent === '{name}'); "
        "facet.scrollIntoView(); const box = facet.querySelector('svg').getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; })()"
    )
    left, top, width, height = box
    y = top + height / 3
    places = [left + width * (first + (last - first) * step / 6) for step in range(7)]
    page.call("Input.dispatchMouseEvent", type="mousePressed", x=places[0], y=y, button="left", clickCount=1)
    for x in places[1:]:
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", x=places[-1], y=y, button="left", clickCount=1)


def drag(page: Page, places: list[tuple[float, float]]) -> None:
    """Press at the first place, move over the others, release at the last."""
    for kind, (x, y) in [
        ("mousePressed", places[0]),
        *(("mouseMoved", place) for place in places[1:]),
        ("mouseReleased", places[-1]),
    ]:
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


def press_all(page: Page, text: str) -> None:
    """Type characters as keys, one after the other."""
    for key in text:
        page.press(key, key)


def click(page: Page, selector: str) -> None:
    page.run(f"document.querySelector({selector!r}).click()")


def choose(page: Page, label: str, value: str) -> None:
    """Choose in the select field whose label begins so."""
    page.run(
        f"(() => {{ const select = [...document.querySelectorAll('label')].find((part) => part.textContent.startsWith({label!r})).querySelector('select'); "
        f"select.value = {value!r}; select.dispatchEvent(new Event('change')); }})()"
    )


def type_into(page: Page, selector: str, text: str, event: str = "input") -> None:
    page.run(
        f"(() => {{ const field = document.querySelector({selector!r}); field.value = {text!r}; field.dispatchEvent(new Event({event!r})); }})()"
    )
