"""Nothing of the data runs as markup in the page of `heatlas view`."""

from __future__ import annotations

import time
from pathlib import Path

from heatlas.pipeline.view.serve import ViewServer, start_view

from ...support.browser import Page
from ...support.hostile_store import COUNT, PAYLOADS, PROPER, payload, write_hostile
from ...support.reported_store import HOSTILE_CLASS, HOSTILE_IDS
from ...support.view_page import opened, until


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


def test_nothing_is_asked_of_other_hosts_and_no_token_leaves(page: Page, server: ViewServer) -> None:
    assert page.requests
    assert [url for url in page.requests if not url.startswith((server.url, "data:", "blob:", "about:"))] == []
    assert page.complaints == []
