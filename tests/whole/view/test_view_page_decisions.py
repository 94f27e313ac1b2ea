"""Decisions made in the page of `heatlas view`: by keyboard, picker, brush, in two tabs."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import heatlas
import pytest
from heatlas.pipeline.decisions.record import current_decisions
from heatlas.pipeline.decisions.rle import decode_mask
from heatlas.pipeline.view.serve import start_view

from ...support.browser import Page
from ...support.tiny_run import wait_until
from ...support.view_page import opened, shown_rows, until


def decided(out: Path) -> dict[str, tuple[str, str | None]]:
    return {decision.id: (decision.kind, decision.label_name) for decision in current_decisions(str(out)).current}


def test_fifty_rows_decided_by_keyboard_survive_a_restart(tab: Page, fresh: Path) -> None:
    tab.resize(1280, 800)
    server = start_view(str(fresh), who="ada")
    page = opened(tab, server, "#decision=none")
    order = [row[0] for row in heatlas.open(str(fresh)).sql("SELECT id FROM atlas").fetchall()]
    keys = ["k", "d", "s", "u"]
    page.press("ArrowRight")
    for number in range(50):
        until(page, f"document.querySelector('.current')?.dataset.position === '{number}'")
        page.press(keys[number % 4], keys[number % 4])
    kinds = {"k": "ok", "d": "drop", "s": "shortcut", "u": "unsure"}
    wait_until(lambda: len(decided(fresh)) == 50, 30)
    expected = {identity: (kinds[keys[number % 4]], None) for number, identity in enumerate(order[:50])}
    assert decided(fresh) == expected
    page.press("z", "z")
    wait_until(lambda: len(decided(fresh)) == 49, 30)
    server.stop()
    again = start_view(str(fresh))
    try:
        page = opened(tab, again, "#decision=any")
        assert shown_rows(page) == 49
        assert page.run("document.querySelectorAll('.cell .decision').length") > 10
        assert page.complaints == []
    finally:
        again.stop()


def test_relabel_by_the_picker_and_the_selection_in_bulk(tab: Page, fresh: Path) -> None:
    server = start_view(str(fresh))
    try:
        page = opened(tab, server)
        page.press("ArrowRight")
        until(page, "document.querySelector('.current') !== null")
        page.press("r", "r")
        until(page, "document.querySelector('dialog[open] .choices li') !== null")
        page.run(
            "(() => { const search = document.querySelector('dialog[open] input'); search.value = 'AN'; search.dispatchEvent(new Event('input')); })()"
        )
        page.press("Enter", "\r")
        wait_until(lambda: decided(fresh), 20)
        [(kind, label)] = decided(fresh).values()
        assert (kind, label) == ("relabel", "ant")
        page.run(
            "document.querySelector('.cell[data-position=\"4\"]').dispatchEvent(new MouseEvent('click', {bubbles: true, ctrlKey: true}))"
        )
        page.run(
            "document.querySelector('.cell[data-position=\"9\"]').dispatchEvent(new MouseEvent('click', {bubbles: true, shiftKey: true}))"
        )
        until(page, "document.querySelectorAll('.cell.selected').length === 6")
        page.run("document.querySelector('#bulk .decide.drop').click()")
        wait_until(lambda: len(decided(fresh)) == 7, 20)
        assert sorted(kind for kind, _ in decided(fresh).values()) == ["drop"] * 6 + ["relabel"]
        until(page, "document.querySelectorAll('.cell .decision.drop').length === 6")
    finally:
        server.stop()


def test_two_tabs_see_each_other_and_lose_nothing(tab: Page, fresh: Path) -> None:
    server = start_view(str(fresh))
    try:
        page = opened(tab, server)
        body = json.dumps({"rows": [5, 6], "kind": "drop"}).encode()
        other = urllib.request.Request(f"{server.url}api/decide", body, {"content-type": "application/json"})
        with urllib.request.urlopen(other) as answer:
            assert json.load(answer)["count"] == 2
        until(page, "document.querySelector('.cell[data-position=\"6\"]') !== null")
        page.run("document.querySelector('.cell[data-position=\"6\"]').click()")
        page.press("k", "k")
        until(page, "document.querySelectorAll('.cell .decision.drop').length === 1")
        wait_until(lambda: len(decided(fresh)) == 2, 20)
        assert sorted(kind for kind, _ in decided(fresh).values()) == ["drop", "ok"]
        assert len(list((fresh / "decisions").glob("*.parquet"))) == 2
    finally:
        server.stop()


def test_a_painted_region_becomes_a_mask_in_source_pixels(tab: Page, fresh: Path) -> None:
    server = start_view(str(fresh))
    try:
        page = opened(tab, server)
        until(page, "document.querySelector('.cell[data-position=\"8\"]') !== null")
        page.run("document.querySelector('.cell[data-position=\"8\"]').click()")
        until(page, "!document.getElementById('detail').hidden")
        page.press("m", "m")
        until(page, "document.querySelector('dialog.paint[open] .mask') !== null")
        left, top, width, height = page.run(
            "(() => { const box = document.querySelector('.mask').getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; })()"
        )
        y = top + height * 0.75
        page.call(
            "Input.dispatchMouseEvent", type="mousePressed", x=left + width * 0.1, y=y, button="left", clickCount=1
        )
        for share in (0.2, 0.3, 0.4):
            page.call(
                "Input.dispatchMouseEvent", type="mouseMoved", x=left + width * share, y=y, button="left", buttons=1
            )
        page.call(
            "Input.dispatchMouseEvent", type="mouseReleased", x=left + width * 0.4, y=y, button="left", clickCount=1
        )
        page.run("[...document.querySelectorAll('dialog.paint button')][0].click()")
        wait_until(lambda: decided(fresh), 20)
        [decision] = current_decisions(str(fresh)).current
        assert decision.mask is not None
        mask = decode_mask(decision.mask)
        assert mask.shape == (20, 30)
        rows, columns = mask.nonzero()
        assert rows.mean() == pytest.approx(15, abs=1.5)
        assert columns.mean() == pytest.approx(7.5, abs=1.5)
    finally:
        server.stop()
