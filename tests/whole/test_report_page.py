"""The report in a real browser: nothing leaves, nothing complains, tables sort and filter, keys work, dark and phone fit."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.compare.compare import compare_runs
from heatlas.pipeline.compare.page import write_page
from heatlas.pipeline.demo.dataset import write_dataset
from heatlas.pipeline.explain.explain import explain_dataset
from heatlas.pipeline.report.build import write_report
from PIL import Image

from ..support.browser import Page, browser_page, needs_chromium
from ..support.reported_store import HOSTILE_IDS, write_reported
from ..support.tiny_run import wait_until

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about a store with hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    out = write_reported(folder / "out", folder / "images", both=True)
    return Path(write_report(str(out), blocks=False).uri)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser_page(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def opened(tab: Page, hostile: Path) -> Iterator[Page]:
    """The page, opened afresh on a desktop; afterwards it must have been quiet."""
    tab.requests.clear()
    tab.complaints.clear()
    tab.resize(1280, 900)
    tab.prefer(prefers_color_scheme="light")
    tab.open(hostile)
    yield tab
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith(("data:", "file:"))] == []
    assert len([url for url in tab.requests if url.startswith("file:")]) == 1


def cells(page: Page, column: int) -> list[str]:
    """The texts of a column of the table of rows, as far as it is shown."""
    return page.run(
        f"[...document.querySelectorAll('#row-table tbody tr')].filter(r => !r.hidden).map(r => r.cells[{column}].textContent.trim())"
    )


def test_it_renders_and_hostile_names_stay_text(opened: Page):
    assert opened.run("document.querySelector('h1').textContent") == "Where the network looks"
    assert opened.run("document.querySelector('.suspect h3').textContent").endswith(
        "<script>complain('class')</script> first"
    )
    assert opened.run("document.scripts.length") == 1
    assert set(HOSTILE_IDS[:3]) <= set(cells(opened, 0))
    assert opened.run(
        "[...document.querySelectorAll('svg use')].every(u => document.querySelector(u.getAttribute('href')))"
    )
    assert opened.run("[...document.querySelectorAll('svg.pair')].every(s => s.getBoundingClientRect().height > 20)")


def test_the_policy_stops_what_escaping_should_have_stopped(opened: Page):
    """The second line of defence, tried with what the first would not let through."""
    script = "window.ran = 0; const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s); ran"
    assert opened.run(f"(() => {{ {script}; return window.ran }})()") == 0
    fetched = opened.run("fetch('http://127.0.0.1:9/').then(() => 'went out', () => 'refused')")
    assert fetched == "refused"
    assert any("Content Security Policy" in request for request in opened.complaints)
    opened.complaints.clear()
    opened.requests[:] = [
        request for request in opened.requests if not request.startswith("http")
    ]  # asked for, and refused before it left


def test_columns_sort_both_ways_by_number_and_empty_last(opened: Page):
    head = "document.querySelectorAll('#row-table thead th')"
    column = opened.run(f"[...{head}].findIndex(h => h.textContent.trim() === 'drop_pct')")
    for order, sign in (("descending", -1), ("ascending", 1)):
        opened.run(f"{head}[{column}].querySelector('button').click()")
        assert opened.run(f"{head}[{column}].getAttribute('aria-sort')") == order
        values = cells(opened, column)
        numbers = [float(value) for value in values if value != "\u2013"]
        assert numbers == sorted(numbers, key=lambda value: sign * value)
        assert len(numbers) == 57
        assert values[57:] == ["\u2013"] * 3


def test_filters_narrow_and_clear(opened: Page):
    set_field = "(field, value) => {{ const f = document.querySelector(`.filters [data-field=${{field}}]`); f.value = value; f.dispatchEvent(new Event('input', {{bubbles: true}})); }}"
    opened.run(f"({set_field.format()})('right', 'no')")
    assert len(cells(opened, 0)) == 6
    assert opened.run("document.querySelector('.filters output').value") == "6 of 60 rows"
    opened.run(f"({set_field.format()})('id', 'IMAGE-0014')")
    assert cells(opened, 0) == ["image-0014"]
    opened.run("document.querySelector('.filters [type=reset]').click()")
    opened.run("new Promise(done => setTimeout(done, 50))")
    assert len(cells(opened, 0)) == 60


def test_the_keyboard_searches_and_walks_through_pictures(opened: Page):
    opened.press("/", "/")
    assert opened.run("document.activeElement.type") == "search"
    opened.run("document.activeElement.blur(); document.querySelector('#worst .open').focus()")
    opened.press("Enter", "\r")
    place = "document.querySelector('#viewer-place').textContent"
    assert opened.run("document.querySelector('#viewer').open")
    assert opened.run(place) == "1 of 8"
    first = opened.run("document.querySelector('#viewer-content .id').textContent")
    opened.press("ArrowRight")
    assert opened.run(place) == "2 of 8"
    assert opened.run("document.querySelector('#viewer-content .id').textContent") != first
    opened.press("ArrowLeft")
    opened.press("ArrowLeft")
    assert opened.run(place) == "8 of 8"
    opened.press("Escape")
    assert not opened.run("document.querySelector('#viewer').open")
    focused = "document.activeElement === document.querySelectorAll('#worst .open')[7]"
    assert wait_until(lambda: opened.run(focused), 20), "the close event comes after the key's"


def test_dark_follows_the_system_and_the_button(opened: Page):
    background = "getComputedStyle(document.body).backgroundColor"
    light = opened.run(background)
    opened.prefer(prefers_color_scheme="dark")
    dark = opened.run(background)
    assert dark != light
    button = "document.querySelector('#theme')"
    assert opened.run(f"({button}.click(), {button}.textContent)") == "Theme: light"
    assert opened.run(background) == light
    opened.prefer(prefers_color_scheme="light")
    assert opened.run(f"({button}.click(), {button}.textContent)") == "Theme: dark"
    assert opened.run(background) == dark
    opened.run(f"{button}.click()")


def contrast(page: Page, selector: str) -> float:
    """Of a text against the nearest background that is not transparent (WCAG 2)."""
    return page.run(
        """(() => {
        const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
        const light = (c) => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
        const el = document.querySelector(SELECTOR);
        let at = el, back = [0, 0, 0, 0];
        while (at && (back = parse(getComputedStyle(at).backgroundColor)).length === 4 && back[3] === 0) at = at.parentElement;
        const [a, b] = [light(parse(getComputedStyle(el).color)), light(back)].sort((x, y) => y - x);
        return (a + .05) / (b + .05);
        })()""".replace("SELECTOR", repr(selector))
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_both_schemes(opened: Page, scheme: str):
    opened.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")  # a transition would be caught halfway
    for selector in (
        ".lead",
        ".tile .name",
        ".tile.alarm .note",
        ".plot p",
        ".plot .mean",
        ".card .id",
        "td .good",
        "td .bad",
        ".sections a",
        "th button",
        ".facts dt",
        "main a",
    ):
        assert contrast(opened, selector) >= 4.5, selector


def test_a_phone_shows_it_without_scrolling_sideways(opened: Page, tmp_path: Path):
    opened.resize(360, 740, phone=True)
    assert opened.run("document.documentElement.scrollWidth") <= 360
    small = opened.run(
        "[...document.querySelectorAll('.tools button, .filters button, .filters select')].filter(b => b.getBoundingClientRect().height < 30).length"
    )
    assert small == 0
    opened.screenshot(tmp_path / "phone.png")
    with Image.open(tmp_path / "phone.png") as image:
        assert image.size == (360, 740)
        assert len(image.convert("RGB").getcolors(10**6) or []) > 50


def test_motion_stops_where_it_is_not_wanted(opened: Page):
    scroll = "getComputedStyle(document.documentElement).scrollBehavior"
    opened.prefer(prefers_reduced_motion="no-preference")
    assert opened.run(scroll) == "smooth"
    opened.prefer(prefers_reduced_motion="reduce")
    assert opened.run(scroll) == "auto"
    assert opened.run("getComputedStyle(document.querySelector('.card')).transitionDuration") == "0s"


def test_the_heat_slider_changes_every_overlay(opened: Page):
    seen = "[...new Set([...document.querySelectorAll('.pair .overlay')].map(g => getComputedStyle(g).opacity))]"
    assert opened.run(seen) == ["0.6"]
    opened.run(
        "(() => { const h = document.querySelector('#map-opacity'); h.value = 20; h.dispatchEvent(new Event('input')); })()"
    )
    assert opened.run(seen) == ["0.2"]


def test_the_demo_shows_how_its_maps_came_about(tab: Page, tmp_path: Path):
    """The whole way: images, maps, the model loaded again, blocks and masks, the shortcut named first."""
    manifest = write_dataset(tmp_path / "data", "test", 48)
    store = tmp_path / "store"
    metrics = ("ebpg", "drop_pct", "border_share")
    explain_dataset(
        model="heatlas.pipeline.demo.network:demo_model",
        data=str(manifest),
        out=str(store),
        workers=0,
        metrics=metrics,
        chance_maps=16,
    )
    assert main(["report", str(store)]) == 0
    tab.requests.clear()
    tab.complaints.clear()
    tab.open(store / "report.html")
    assert tab.run("document.querySelector('.suspect h3').textContent") == "Look at the class octagon first"
    assert tab.run("document.querySelectorAll('#arrival .sub').length") == 3
    assert tab.run("document.querySelectorAll('#arrival .steps')[0].children.length") == 6
    assert tab.run("document.querySelectorAll('#arrival .masks svg').length") >= 3 * 4 * 2
    assert tab.run("document.querySelector('#arrival .note-box')") is None
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith(("data:", "file:"))] == []


def test_opacity_and_outline_are_inside_the_enlarged_view(opened: Page) -> None:
    opened.run("document.querySelector('#galleries .card .open').click()")
    assert opened.run("document.getElementById('viewer').open")
    inside = "document.querySelector('#viewer .opacity-slider')"
    assert opened.run(f"{inside}.offsetParent !== null && {inside}.closest('dialog') !== null")
    opened.run(f"(() => {{ const slider = {inside}; slider.value = 20; slider.dispatchEvent(new Event('input')); }})()")
    assert opened.run("getComputedStyle(document.querySelector('#viewer .pair .overlay')).opacity") == "0.2"
    assert opened.run("document.getElementById('map-opacity').value") == "20"
    outline = "getComputedStyle(document.querySelector('#viewer .outline')).display"
    assert opened.run(outline) == "none"
    opened.run("document.getElementById('outlined').click()")
    assert opened.run(outline) != "none"
    opened.run(
        "(() => { document.getElementById('outlined').click(); document.querySelector('#viewer [data-close]').click(); })()"
    )


def test_no_table_is_cut_off_at_1280_pixels(opened: Page) -> None:
    opened.resize(1280, 800)
    wide = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.getAttribute('aria-label'))"
    assert opened.run(wide) == []


def test_an_image_and_its_map_are_on_the_first_screen(opened: Page) -> None:
    opened.resize(1280, 800)
    opened.run("window.scrollTo(0, 0)")
    assert opened.run("document.querySelector('.hero .pair').getBoundingClientRect().bottom < 800")
    assert opened.run("document.querySelectorAll('.hero .pair use').length >= 3")


def test_sections_of_classes_lead_to_rows_and_back(opened: Page) -> None:
    links = "[...document.querySelectorAll('.classes a, #classes td a')].map((link) => link.getAttribute('href'))"
    first = opened.run(links)[0]
    assert opened.run(f"document.querySelector('{first} .gallery .card') !== null")
    label = opened.run(f"document.querySelector('{first} a[data-choose]').dataset.choose")
    opened.run(f"document.querySelector('{first} a[data-choose]').click()")
    opened.run("new Promise((done) => setTimeout(done, 50))")
    shown = opened.run(
        "[...document.querySelectorAll('#row-table tbody tr')].filter((row) => !row.hidden).map((row) => row.dataset.label)"
    )
    assert len(shown) > 5
    assert set(shown) == {label}


def test_a_report_of_300_images_prints_on_fewer_than_12_pages(tab: Page, tmp_path: Path) -> None:
    out = write_reported(tmp_path / "out", tmp_path / "images", 300, both=True)
    (out / "curation").mkdir()
    ids = [f"image-{number:04d}" for number in range(20, 60)]
    table = pa.table({"id": ids, "reason": ["because"] * 40, "priority": [1.0] * 40})
    pq.write_table(table, out / "curation" / "shortcut.parquet")
    tab.open(Path(write_report(str(out), blocks=False).uri))
    assert tab.run("document.querySelectorAll('.class-section a[href^=\"#queue-\"]').length") == 3
    assert (
        tab.run(
            "[...document.querySelectorAll('a[href^=\"#\"]')].filter((link) => !document.querySelector(link.getAttribute('href'))).length"
        )
        == 0
    )
    pdf = base64.b64decode(tab.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) < 12


def test_bars_say_what_they_count(opened: Page) -> None:
    titles = opened.run("[...document.querySelectorAll('#metrics .plot')].map((plot) => [...plot.querySelectorAll('.hist title')].map((title) => title.textContent))")  # fmt: skip
    assert len(titles) >= 4
    for plot in titles:  # 57 images have metrics: every 20th could not be decoded
        assert sum(int(re.search(r": ([0-9,]+) images?$", title)[1]) for title in plot) == 57  # pyright: ignore[reportOptionalSubscript]


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)])
def test_a_comparison_is_not_wider_than_the_screen(tab: Page, tmp_path: Path, width: int, phone: bool) -> None:
    first = write_reported(tmp_path / "a", tmp_path / "images", 20)
    second = write_reported(tmp_path / "b", tmp_path / "images", 20, data_root=Path("/" + "x" * 500))
    to = tmp_path / "page.html"
    write_page(compare_runs(str(first), str(second)), str(to))
    tab.complaints.clear()
    tab.resize(width, 900, phone=phone)
    tab.open(to)
    assert "xxxxx" in tab.run("document.querySelector('#runs pre').textContent")
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert "Mass on the object ebpg" in tab.run("document.querySelector('#metrics table').textContent")
    assert all(re.fullmatch(r"\S+ to \S+: \d+ pairs?", title) for title in tab.run("[...document.querySelectorAll('#moved .hist title')].map((title) => title.textContent)"))  # fmt: skip
    assert tab.complaints == []
