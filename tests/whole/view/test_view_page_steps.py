"""Steps that a reviewer takes in the page of `heatlas view`: back and forth, undo, picking, confirming, comparing, by mouse and keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import heatlas
import pytest
from heatlas.pipeline.decisions.record import current_decisions
from heatlas.pipeline.view.serve import ViewServer, start_view

from ...support import reported_store
from ...support.browser import Page, needs_chromium
from ...support.embedded_store import write_embedded
from ...support.reported_store import looking, write_reported
from ...support.tiny_run import wait_until
from ...support.view_client import Client
from ...support.view_page import brush, choose, click, drag, opened, press_all, shown_rows, type_into, until

pytestmark = needs_chromium
PIXELS = "Array.from(document.querySelector({!r}).getContext('2d').getImageData(0, 0, 448, 448).data).reduce((sum, value) => (sum * 31 + value) % 1000003, 7)"
DETAIL_OPEN = "!document.getElementById('detail').hidden && document.querySelector('#detail .id') !== null"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    return write_reported(folder / "out", folder / "images", 60, both=True)


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[ViewServer]:
    server = start_view(str(store), who="ada")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewServer]:
    """A store with marked objects, blocks and features, beside a second one."""
    folder = tmp_path_factory.mktemp("linked")
    out = write_embedded(folder / "out", folder / "images")
    with pytest.MonkeyPatch.context() as patch:  # the second store's maps lie elsewhere
        patch.setattr(reported_store, "looking", lambda at_object: looking(not at_object))
        other = write_reported(folder / "other", folder / "others", 40, both=True)
    names = {f"image-{number:04d}" for number in range(40)}
    assert len(names & set(heatlas.open(str(other)).table(["id"])["id"].to_pylist())) == 33
    server = start_view(str(out), compare=str(other))
    yield server
    server.stop()


@pytest.fixture
def page(tab: Page, server: ViewServer) -> Page:
    return opened(tab, server)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    return write_reported(tmp_path / "out", tmp_path / "images", 30)


def kinds(out: Path) -> dict[str, str]:
    return {decision.id: decision.kind for decision in current_decisions(str(out)).current}


def test_back_takes_filters_back_and_closes_the_image(page: Page) -> None:
    all_rows = shown_rows(page)
    choose(page, "Prediction", "wrong")
    until(page, f"Number(document.getElementById('totals').dataset.rows) < {all_rows}")
    wrong = shown_rows(page)
    brush(page, "drop_pct", 0.001, 0.5)
    until(page, "document.querySelectorAll('.chip').length === 2")
    page.run("history.back()")  # a whole drag is one step
    until(
        page,
        f"document.querySelectorAll('.chip').length === 1 && document.getElementById('totals').dataset.rows === '{wrong}'",
    )
    click(page, '.cell[data-position="0"]')
    until(page, DETAIL_OPEN)
    page.press("ArrowRight")
    until(page, "document.querySelector('.current')?.dataset.position === '1'")
    page.run("history.back()")
    until(page, "document.getElementById('detail').hidden")
    page.run("history.back()")
    until(
        page,
        f"document.querySelectorAll('.chip').length === 0 && document.getElementById('totals').dataset.rows === '{all_rows}'",
    )
    page.run("history.forward()")
    until(page, f"document.getElementById('totals').dataset.rows === '{wrong}'")
    assert page.complaints == []


def test_a_bad_condition_leaves_no_old_numbers_and_is_said_in_plain_words(page: Page) -> None:
    type_into(page, "#filters textarea", "ebgp <\n 1", "change")
    until(page, "!document.querySelector('.error').hidden")
    until(page, "document.querySelectorAll('.cell').length === 0")
    until(page, "document.getElementById('totals').textContent.includes('The filter cannot be applied')")
    assert "\\u000a" not in page.run("document.body.innerText")
    assert "ebgp" in page.run("document.querySelector('.empty').textContent")
    until(
        page,
        "document.querySelectorAll('.front[height=\"0.0\"]').length === document.querySelectorAll('.front').length",
    )
    type_into(page, "#filters textarea", "ebpg < 0", "change")
    until(page, "document.querySelector('.empty').textContent === 'No image matches the filter.'")
    type_into(page, "#filters textarea", "", "change")
    until(page, "document.querySelectorAll('.cell').length > 20 && document.querySelector('.empty').hidden")


def test_histograms_are_reached_and_moved_by_keyboard(page: Page, store: Path) -> None:
    page.run(
        "[...document.querySelectorAll('.facet')].find((part) => part.querySelector('code')?.textContent === 'ebpg').querySelector('svg').focus()"
    )
    assert page.run("document.activeElement.tagName") == "svg"
    page.press("ArrowRight")
    until(page, "location.hash.includes('r.ebpg=')")
    page.press("ArrowRight")
    page.call(
        "Input.dispatchKeyEvent",
        type="keyDown",
        key="ArrowRight",
        code="ArrowRight",
        windowsVirtualKeyCode=39,
        modifiers=8,
    )
    until(page, "document.querySelectorAll('.chip').length === 1")
    low, high = (
        float(end) for end in page.run("new URLSearchParams(location.hash.slice(1)).get('r.ebpg')").split("..")
    )
    column = next(
        column
        for column in page.run("fetch('api/store').then((answer) => answer.json())")["columns"]
        if column["name"] == "ebpg"
    )
    step = (column["high"] - column["low"]) / column["bins"]
    assert (low, high) == pytest.approx((column["low"] + step, column["low"] + 3 * step))
    where = f"ebpg >= {low} AND ebpg < {high} AND (target = prediction)"
    [(expected,)] = heatlas.open(str(store)).sql(f"SELECT count(*) FROM atlas WHERE {where}").fetchall()
    until(page, f"document.getElementById('totals').dataset.rows === '{expected}'")
    assert page.run("document.querySelector('.current')") is None  # the grid did not move
    page.press("Delete")
    until(page, "document.querySelectorAll('.chip').length === 0")


def test_rows_of_all_classes_are_not_counted_as_images(page: Page, store: Path) -> None:
    choose(page, "Rows", "all")
    rows = len(heatlas.open(str(store)))
    until(page, f"document.getElementById('totals').textContent.startsWith('{rows} rows, 60 of 60 images')")


def test_the_picker_follows_arrow_keys_and_takes_nothing_unasked(tab: Page, fresh: Path) -> None:
    server = start_view(str(fresh))
    try:
        page = opened(tab, server)
        page.press("ArrowRight")
        until(page, "document.querySelector('.current')?.dataset.position === '0'")
        page.press("r", "r")
        press_all(page, "d")  # typed at once: goes into the dialog, and drops nothing
        until(page, "document.querySelector('dialog.picker[open] input').value === 'd'")
        type_into(page, "dialog.picker input", "")
        page.press("Enter", "\r")
        assert page.run("document.querySelector('dialog.picker[open]') !== null")
        until(page, "document.querySelector('dialog.picker').textContent.includes('(label, prediction)')")
        first = page.run("[...document.querySelectorAll('.choices li bdi')].map((part) => part.textContent)")
        page.press("ArrowDown")
        page.press("ArrowDown")
        page.press("ArrowDown")
        page.press("ArrowUp")
        assert page.run("document.querySelector('.choices [aria-selected=true] bdi').textContent") == first[1]
        assert (
            page.run("document.querySelector('dialog.picker input').getAttribute('aria-activedescendant')")
            == "choice-1"
        )
        page.press("Enter", "\r")
        wait_until(lambda: kinds(fresh), 20)
        [decision] = current_decisions(str(fresh)).current
        assert decision.kind == "relabel"
        assert (decision.label_name or "")[:7] == first[1][:7]
        assert page.complaints == []
    finally:
        server.stop()


def test_undo_survives_loading_the_page_anew_and_goes_back_to_the_image(tab: Page, fresh: Path) -> None:
    server = start_view(str(fresh), who="ada")
    try:
        page = opened(tab, server, "#decision=none")
        page.press("ArrowRight")
        press_all(page, "kdu")
        wait_until(lambda: len(kinds(fresh)) == 3, 20)
        until(page, "document.querySelector('.current')?.dataset.position === '3'")
        page.press("z", "z")
        wait_until(lambda: len(kinds(fresh)) == 2, 20)
        until(page, "document.querySelector('.current')?.dataset.position === '2'")
        page.call("Page.reload")
        until(
            page, "document.documentElement?.dataset.ready === '1' && document.querySelectorAll('.cell').length === 28"
        )
        page.press("z", "z")
        wait_until(lambda: set(kinds(fresh).values()) == {"ok"}, 20)
    finally:
        server.stop()
    again = start_view(str(fresh), who="ada")
    try:
        page = opened(tab, again)
        page.press("z", "z")  # of the server before: asked about first
        until(page, "document.querySelector('dialog.confirm[open]')?.textContent.includes('ok, 1 image')")
        page.press("Escape")
        assert len(kinds(fresh)) == 1
        page.press("z", "z")
        until(page, "document.querySelector('dialog.confirm[open]') !== null")
        click(page, "dialog.confirm .yes")
        wait_until(lambda: not kinds(fresh), 20)
    finally:
        again.stop()


def test_deciding_about_all_is_confirmed_with_number_and_filter(tab: Page, fresh: Path) -> None:
    server = start_view(str(fresh))
    try:
        page = opened(tab, server, "#outcome=wrong")
        expected = shown_rows(page)
        assert 0 < expected < 30
        page.run("document.querySelector('.all').open = true")
        click(page, ".all .decide.drop")
        until(page, "document.querySelector('dialog.confirm[open]') !== null")
        text = page.run("document.querySelector('dialog.confirm').textContent")
        assert f"all {expected} images?" in text
        assert "wrong" in text
        page.press("Enter", "\r")  # the button in focus is Cancel
        until(page, "document.querySelector('dialog.confirm') === null")
        assert kinds(fresh) == {}
        click(page, ".all .decide.drop")
        until(page, "document.querySelector('dialog.confirm[open]') !== null")
        click(page, "dialog.confirm .yes")
        wait_until(lambda: len(kinds(fresh)) == expected, 20)
        assert set(kinds(fresh).values()) == {"drop"}
    finally:
        server.stop()


def test_from_a_nearest_image_the_arrows_go_on_from_there_and_keys_decide_about_it(
    tab: Page, linked: ViewServer
) -> None:
    page = opened(tab, linked, "#label=0")
    click(page, '.cell[data-position="0"]')
    until(page, f"{DETAIL_OPEN} && document.querySelector('details[data-by=features]') !== null")
    page.run("document.querySelector('details[data-by=features]').open = true")
    until(page, "document.querySelectorAll('details[data-by=features] button').length === 12")
    labels = page.run(
        "[...document.querySelectorAll('details[data-by=features] button')].map((part) => Number(part.getAttribute('aria-label').match(/Row (\\d+)/)[1]))"
    )
    near = next(place for place, n in enumerate(labels) if n % 3 == 0 and n > 6)
    page.run(f"document.querySelectorAll('details[data-by=features] button')[{near}].click()")
    position = labels[near] // 3
    until(page, f"document.querySelector('.current')?.dataset.position === '{position}'")
    until(page, f"document.querySelector('#detail .id').textContent === 'image-{labels[near]:04d}'")
    page.press("ArrowRight")
    until(page, f"document.querySelector('.current')?.dataset.position === '{position + 1}'")
    page.run("location.hash = 'label=0&row=1'")  # an image of another class
    until(
        page,
        "document.querySelector('#detail .id').textContent === 'image-0001' && !document.querySelector('.outside').hidden",
    )
    page.press("u", "u")
    client = Client(linked)
    wait_until(lambda: client.get("detail/1")["decisions"], 20)
    assert client.get("latest_act")["row"] == 1
    until(
        page,
        f"document.querySelector('.outside').hidden && document.querySelector('.current')?.dataset.position === '{position + 1}'",
    )
    assert page.complaints == []


def test_opacity_and_outlines_reach_every_map(tab: Page, linked: ViewServer) -> None:
    page = opened(tab, linked, "#row=8")
    until(page, "document.querySelectorAll('.second canvas').length === 2")
    until(page, "document.querySelector('.truth-text')?.textContent.includes('1 box')")
    page.run("document.querySelector('details[data-by=blocks]').open = true")
    until(page, "document.querySelectorAll('details[data-by=blocks] canvas').length === 2")
    shown = {
        name: PIXELS.format(name)
        for name in (".second canvas", ".second .difference", "details[data-by=blocks] canvas")
    }
    before = {name: page.run(script) for name, script in shown.items()}
    type_into(page, "#opacity", "20")
    until(page, " && ".join(f"({script}) !== {before[name]}" for name, script in shown.items()))
    before = {name: page.run(script) for name, script in shown.items()}
    marks = "[...document.querySelectorAll('.cell canvas.marks')].filter((canvas) => !canvas.hidden).length"
    page.press("b", "b")  # no marked objects
    until(page, f"{marks} === 0")
    before = {name: page.run(script) for name, script in shown.items()}
    page.press("c", "c")
    until(page, f"{marks} > 10")
    for name in (".second canvas", "details[data-by=blocks] canvas"):
        assert page.run(shown[name]) != before[name]
    assert "overlap by" in page.run("document.querySelector('.second').textContent")


def test_marked_objects_are_outlined_in_tiles_and_the_second_store_filters(tab: Page, linked: ViewServer) -> None:
    page = opened(tab, linked)
    until(page, "[...document.querySelectorAll('.cell canvas.marks')].filter((canvas) => !canvas.hidden).length > 15")
    choose(page, "Second store", "not in the second")
    until(page, "document.getElementById('totals').dataset.rows === '7'")
    assert "second store: not in the second" in page.run("document.querySelector('.chips').textContent")
    choose(page, "Second store", "")
    page.run(  # not open at first, as the two stores have the same values
        "(() => { const more = document.querySelector('select[aria-label=\"Add a histogram\"]'); more.value = 'delta_ebpg'; more.dispatchEvent(new Event('change')); })()"
    )
    titles = page.run("[...document.querySelectorAll('.histograms h3')].map((part) => part.textContent)")
    assert any("second minus first store" in title for title in titles)
    assert page.complaints == []


def test_a_painted_core_is_recorded_as_core(tab: Page, fresh: Path) -> None:
    server = start_view(str(fresh))
    try:
        page = opened(tab, server, "#row=8")
        until(page, DETAIL_OPEN)
        page.press("m", "m")
        until(page, "document.querySelector('dialog.paint[open] .mask') !== null")
        left, top, width, height = page.run(
            "(() => { const box = document.querySelector('.mask').getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; })()"
        )
        drag(page, [(left + width * share, top + height / 2) for share in (0.3, 0.5, 0.7)])
        page.run(
            "[...document.querySelectorAll('dialog.paint button')].find((part) => part.textContent === 'Record as core').click()"
        )
        wait_until(lambda: kinds(fresh), 20)
        assert json.dumps(list(kinds(fresh).values())) == '["core"]'
    finally:
        server.stop()
