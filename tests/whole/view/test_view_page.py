"""The page of `heatlas view` in a real browser: brush, grid, search, keyboard, address."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import heatlas
import pytest
from heatlas.pipeline.view.serve import ViewServer, start_view

from ...support.browser import Page
from ...support.embedded_store import write_embedded
from ...support.reported_store import HOSTILE_IDS
from ...support.view_client import Client
from ...support.view_page import brush, drag, opened, shown_rows, until
from ...support.view_rows import count


def shown_ids(page: Page) -> list[str]:
    return page.run("[...document.querySelectorAll('.cell')].sort((a, b) => a.dataset.position - b.dataset.position).map((cell) => cell.title)")  # fmt: skip


def test_a_brush_filters_the_grid_and_equals_sql(page: Page, store: Path) -> None:
    assert shown_rows(page) == count(store, "true")
    brush(page, "drop_pct", 0.001, 0.3)
    until(page, "document.querySelectorAll('.chip').length === 1")
    low, high = page.run("new URLSearchParams(location.hash.slice(1)).get('r.drop_pct')").split("..")
    assert low == ""
    expected = count(store, f"drop_pct < {high}")
    assert 0 < expected < count(store, "true")
    until(page, f"document.getElementById('totals').dataset.rows === '{expected}'")
    until(
        page,
        f"document.querySelectorAll('.cell').length === {min(expected, 24)} || document.querySelectorAll('.cell').length > 20",
    )
    brush(page, "ebpg", 0.5, 0.99)
    until(page, "document.querySelectorAll('.chip').length === 2")
    from_ = page.run("new URLSearchParams(location.hash.slice(1)).get('r.ebpg')").split("..")[0]
    both = count(store, f"drop_pct < {high} AND ebpg >= {from_}")
    assert both != expected
    until(page, f"document.getElementById('totals').dataset.rows === '{both}'")
    sum_ = "(name) => [...[...document.querySelectorAll('.facet')].find((one) => one.querySelector('code')?.textContent === name).querySelectorAll('.front title')].reduce((sum, title) => sum + Number(title.textContent.match(/: (\\d+) row/)[1]), 0)"
    assert page.run(f"({sum_})('drop_pct')") == count(store, f"ebpg >= {from_}")
    assert page.run(f"({sum_})('ebpg')") == expected
    assert page.complaints == []


def test_any_id_is_found_and_shows_its_maps(page: Page) -> None:
    page.run(
        "(() => { const search = document.getElementById('search'); search.value = 'image-0097'; search.dispatchEvent(new Event('input')); })()"
    )
    until(
        page,
        "document.getElementById('totals').dataset.rows === '1' && document.querySelectorAll('.cell').length === 1",
    )
    assert shown_ids(page) == ["image-0097"]
    page.run("document.querySelector('.cell').click()")
    until(page, "!document.getElementById('detail').hidden")
    assert "image-0097" in page.run("document.getElementById('detail').textContent")
    painted = (
        "(canvas) => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size > 4"
    )
    until(page, f"[...document.querySelectorAll('.cell canvas')].some({painted})")
    assert page.run(f"[...document.querySelectorAll('.overlay')].every({painted})")


def test_a_region_of_the_scatter_plot_filters_and_an_image_shows_what_is_linked_to_it(
    tab: Page, tmp_path: Path
) -> None:
    server = start_view(str(write_embedded(tmp_path / "out", tmp_path / "images")))
    try:
        tab.resize(1280, 900)
        page = opened(tab, server)
        page.press("e", "e")
        until(page, "document.querySelectorAll('#scatter .entry').length === 3")
        page.run(
            "(() => { const kind = document.querySelector('#scatter select'); kind.value = 'features-pca'; kind.dispatchEvent(new Event('change')); })()"
        )
        until(page, "document.querySelector('#scatter [role=status]').textContent.includes('38 of 40 images')")
        left, top, width, height = page.run(
            "(() => { const box = document.querySelector('.points').getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; })()"
        )
        drag(page, [(left + width / 2 - height / 2, top + 2), (left + width / 2, top + height - 2)])
        until(page, "location.hash.includes('region=')")
        until(page, "Number(document.getElementById('totals').dataset.rows) < 40")
        region = page.run("new URLSearchParams(location.hash.slice(1)).get('region')")
        rows, _ = Client(server).arrow("rows", {"filter": {"region": region}, "count": 100})
        assert 0 < len(rows) < 38
        until(page, f"document.getElementById('totals').dataset.rows === '{len(rows)}'")
        page.run("document.querySelector('.chip').click()")
        until(page, "document.getElementById('totals').dataset.rows === '40'")
        until(page, "document.querySelector('.cell[data-position=\"0\"]') !== null")
        page.run("document.querySelector('.cell[data-position=\"0\"]').click()")
        until(page, "document.querySelector('.truth-text')?.textContent.includes('as marked (1 box)')")
        page.run("document.querySelectorAll('#detail details').forEach((part) => { part.open = true; })")
        for by, count in (("map", 12), ("features", 12)):
            until(page, f"document.querySelectorAll('details[data-by={by}] button').length === {count}")
        until(page, "document.querySelectorAll('details[data-by=blocks] canvas').length === 2")
        assert page.complaints == []
    finally:
        server.stop()


def test_the_keyboard_goes_on_and_opens(page: Page) -> None:
    page.press("ArrowRight")
    page.press("ArrowRight")
    until(page, "document.querySelector('.current')?.dataset.position === '1'")
    page.press("ArrowDown")
    until(page, "Number(document.querySelector('.current')?.dataset.position) > 4")
    page.press("Enter", "\r")
    until(page, "!document.getElementById('detail').hidden")
    page.press("Escape")
    until(page, "document.getElementById('detail').hidden")
    page.press("x", "x")
    until(page, "document.querySelectorAll('.cell.selected').length === 1")
    page.press("/", "/")
    assert page.run("document.activeElement.id") == "search"


def test_the_address_holds_the_filter(tab: Page, server: ViewServer, store: Path) -> None:
    page = opened(tab, server, "#r.ebpg=..0.3&outcome=off-object&label=1&sort=drop_pct&descending=1&row=4")
    expected = count(store, "ebpg < 0.3 AND prediction = label AND label = 1")
    until(page, f"document.getElementById('totals').dataset.rows === '{expected}'")
    assert page.run("document.querySelectorAll('.chip').length") == 3
    assert page.run("document.getElementById('sort').value") == "drop_pct"
    until(page, "!document.getElementById('detail').hidden")
    rows = (
        heatlas.open(str(store))
        .sql(
            "SELECT id FROM atlas WHERE target = prediction AND ebpg < 0.3 AND prediction = label AND label = 1 ORDER BY drop_pct DESC"
        )
        .fetchall()
    )
    until(page, f"document.querySelector('.current')?.title === {HOSTILE_IDS[4]!r}")  # the grid goes to the image
    page.run("document.getElementById('grid').scrollTop = 0")
    until(page, f"document.querySelector('.cell[data-position=\"0\"]')?.title === {rows[0][0]!r}")
    page.run("[...document.querySelectorAll('.chips .quiet')].at(-1).click()")
    until(page, f"document.getElementById('totals').dataset.rows === '{count(store, 'true')}'")
    assert "r.ebpg" not in page.run("location.hash")


def test_a_wrong_condition_is_said_beside_it(page: Page) -> None:
    page.run(
        "(() => { const area = document.querySelector('#filters textarea'); area.value = 'ebgp < 1'; area.dispatchEvent(new Event('change')); })()"
    )
    until(page, "!document.querySelector('.error').hidden")
    assert "ebgp" in page.run("document.querySelector('.error').textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(tab: Page, server: ViewServer, scheme: str) -> None:
    tab.resize(390, 844, phone=True)
    tab.prefer(prefers_color_scheme=scheme)
    page = opened(tab, server)
    assert page.run("document.documentElement.scrollWidth <= 390")
    assert page.run("document.querySelectorAll('.cell').length > 8")
    paper = page.run("getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (paper > 128) == (scheme == "light")
    page.run("document.getElementById('toggle-filters').click()")
    until(page, "getComputedStyle(document.getElementById('filters')).display !== 'none'")
    page.run("document.getElementById('toggle-filters').click(); document.querySelector('.cell').click()")
    until(page, "document.querySelector('.mirror-opacity input')?.checkVisibility()")  # the image covers the bar
    assert page.run("document.documentElement.scrollWidth <= 390")
    page.run("(() => { const slider = document.querySelector('.mirror-opacity input'); slider.value = 25; slider.dispatchEvent(new Event('input')); })()")  # fmt: skip
    assert page.run("document.getElementById('opacity').value") == "25"
    tab.prefer(prefers_color_scheme="light")


def test_the_command_prints_its_address_and_ends_quietly_on_ctrl_c(fresh: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "heatlas", "view", str(fresh), "--who", "ada"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    url = process.stdout.readline().split(": ", 1)[1].strip()
    with urllib.request.urlopen(f"{url}api/store") as answer:
        assert json.load(answer)["images"] == 60
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "ended" in out
    assert "error" not in err
    assert "Traceback" not in err
