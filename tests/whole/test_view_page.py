"""The page of `heatlas view` in a real browser: brush, grid, search, keyboard, address, and nothing of the data run as markup."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import heatlas
import pytest
from heatlas.pipeline.decisions.record import current_decisions
from heatlas.pipeline.decisions.rle import decode_mask
from heatlas.pipeline.view.serve import ViewServer, start_view

from ..support.browser import Page, browser_page, needs_chromium
from ..support.embedded_store import write_embedded
from ..support.hostile_store import COUNT, PAYLOADS, PROPER, payload, write_hostile
from ..support.reported_store import HOSTILE_CLASS, HOSTILE_IDS, write_reported
from ..support.tiny_run import wait_until
from ..support.view_client import Client
from ..support.view_page import brush, drag, opened, shown_rows, until

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view")
    return write_reported(folder / "out", folder / "images", 120, both=True)


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[ViewServer]:
    server = start_view(str(store))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser_page(tmp_path_factory.mktemp("browser")) as page:
        page.resize(1280, 800)
        yield page


@pytest.fixture
def page(tab: Page, server: ViewServer) -> Page:
    tab.resize(1280, 800)
    return opened(tab, server)


def shown_ids(page: Page) -> list[str]:
    return page.run("[...document.querySelectorAll('.cell')].sort((a, b) => a.dataset.position - b.dataset.position).map((cell) => cell.title)")  # fmt: skip


def count(store: Path, where: str) -> int:
    rows = heatlas.open(str(store)).sql(
        f"SELECT count(DISTINCT id) FROM atlas WHERE (target = prediction OR target IS NULL) AND ({where})"
    )
    return rows.fetchall()[0][0]


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


def test_hostile_texts_are_shown_and_never_run(page: Page) -> None:
    page.run("window.complain = (what) => { document.title = `ran ${what}`; }")
    texts = []
    for number in range(len(HOSTILE_IDS)):
        page.run(f"document.querySelector('.cell[data-position=\"{number}\"]').click()")
        until(
            page,
            f"document.querySelector('.current')?.dataset.position === '{number}' && !document.getElementById('detail').hidden",
        )
        time.sleep(0.2)
        texts.append(page.run("document.querySelector('#detail .id').textContent"))
    assert "{{ 7 * 7 }}{% raw %}" in texts
    assert "</script><script>complain(2)</script>" in texts
    assert "\\u202egnp.exe" in texts
    time.sleep(0.3)
    assert page.run("document.title").startswith("heatlas view")
    assert (
        page.run("document.querySelectorAll('main img[onerror], main script, #detail script, .layer svg').length") == 0
    )
    text = page.run("document.body.textContent")
    assert HOSTILE_CLASS[:30] in text
    assert "\u202e" not in text
    assert page.complaints == []


SEE_ALL = """(async () => {
  const grid = document.getElementById('grid'), seen = {};
  const note = () => { for (const cell of document.querySelectorAll('.cell')) seen[cell.dataset.position] = [cell.title, ...[...cell.querySelectorAll('bdi')].map((part) => part.textContent)]; };
  for (let round = 0; round < 20 && Object.keys(seen).length < COUNT; round++) {  // a busy machine draws some only later
    for (let top = 0; top <= grid.scrollHeight; top += grid.clientHeight / 2) {
      grid.scrollTop = top;
      for (let still = 0, before = -1; still < 4; still++) {
        await new Promise((done) => setTimeout(done, 15));
        note();
        if (Object.keys(seen).length !== before) { still = 0; before = Object.keys(seen).length; }
      }
    }
  }
  return seen;
})()"""
FOREIGN = """[...document.querySelectorAll('*')].filter((part) => ['IFRAME', 'OBJECT', 'EMBED', 'BASE', 'FORM', 'math'].includes(part.tagName)
  || [...part.attributes].some(({name}) => name.startsWith('on')) || (part.tagName === 'SCRIPT' && !part.src.endsWith('view.js'))
  || (part.tagName === 'A' && !part.classList.contains('skip')) || (part.tagName === 'STYLE')
  || (part.tagName === 'IMG' && !part.getAttribute('src').startsWith('api/'))).map((part) => part.outerHTML)"""


def test_a_thousand_hostile_ids_labels_and_class_names_show_as_text(tab: Page, tmp_path: Path) -> None:
    server = start_view(str(write_hostile(tmp_path / "out", tmp_path / "images")))
    try:
        tab.resize(1280, 800)
        page = opened(tab, server)
        page.run("window.complain = (what) => { document.title = `ran ${what}`; }")
        seen = page.run(SEE_ALL.replace("COUNT", str(COUNT)))
        assert len(seen) == COUNT
        for number in range(COUNT):
            title, explained, label = seen[str(number)]
            if number % len(PAYLOADS) in PROPER:
                assert title == payload(number, "i")
                assert label.startswith(payload(number, "n")[:19])
            if (number + 1) % len(PAYLOADS) in PROPER:
                assert explained.startswith(payload((number + 1) % COUNT, "n")[:26])
            assert not set("\u202e\u2066\u0000\x1b\n\r\t") & set(title + explained + label)
        listed = page.run("[...document.querySelectorAll('.classes bdi')].map((part) => part.textContent)")
        assert len(listed) == 200
        for number in (0, 2, 3, 7):
            page.run(
                f"location.hash = 'row={number}&label={number}&text=' + encodeURIComponent({payload(number, 'i')!r})"
            )
            until(
                page,
                "document.querySelectorAll('.cell').length === 1 && document.querySelectorAll('.chip').length === 2",
            )
            page.run("document.querySelector('.cell').click()")
            until(page, f"document.querySelector('#detail .id')?.textContent === {payload(number, 'i')!r}")
            assert payload(number, "n")[:19] in page.run("document.querySelector('.chips').textContent")
        page.press("Escape")
        page.press("r", "r")
        until(page, "document.querySelectorAll('dialog[open] .choices li').length > 20")
        assert page.run(FOREIGN) == []
        assert page.run("document.title").startswith("heatlas view")
        assert page.complaints == []
    finally:
        server.stop()


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


def test_nothing_is_asked_of_other_hosts_and_no_token_leaves(page: Page, server: ViewServer) -> None:
    assert page.requests
    assert [url for url in page.requests if not url.startswith((server.url, "data:", "blob:", "about:"))] == []
    assert page.complaints == []


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


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    return write_reported(tmp_path / "out", tmp_path / "images", 60)


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
