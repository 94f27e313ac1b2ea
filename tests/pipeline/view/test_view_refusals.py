"""What the server of `heatlas view` refuses: paths, origins, tokens, SQL, large questions."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import heatlas
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.view.guard import LARGEST_BODY_BYTES
from heatlas.pipeline.view.serve import start_view
from heatlas.pipeline.view.view_rows import ViewRows

from ...support.view_client import Client


@pytest.mark.parametrize("root", ["/", "/wrong/", "/wrong-token-of-the-same-length-as-it/", "//"])
def test_without_the_token_nothing_is_answered(client: Client, root: str) -> None:
    for path in ("", "api/store", "view.js", "api/thumbnail/0"):
        status, headers, content = client.send("GET", path, root=root)
        assert status == 403
        assert "token" in json.loads(content)["error"]
        assert "content-security-policy" in headers


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"host": "evil.example"},
        {"host": "evil.example:80"},
        {"host": ""},
    ],
)
def test_foreign_origins_and_hosts_are_refused(client: Client, headers: dict[str, str]) -> None:
    assert client.send("GET", "api/store", **headers)[0] == 403
    body = json.dumps({"filter": {}}).encode()
    assert client.send("POST", "api/rows", body, content_type="application/json", **headers)[0] == 403


def test_the_page_may_send_its_own_origin(client: Client) -> None:
    own = {"origin": f"http://127.0.0.1:{client.port}", "sec_fetch_site": "same-origin"}
    assert client.send("GET", "api/store", **own)[0] == 200


@pytest.mark.parametrize(
    "path",
    ["../../../../etc/passwd", "..%2f..%2fapp.py", "app.py", "assets/../app.py", "view.js/../app.py", "%2e%2e/app.py", ".", "api/map/-1", "api/view/x"],
)  # fmt: skip
def test_no_path_leaves_the_page(client: Client, path: str) -> None:
    status, _, content = client.send("GET", path)
    assert status in (403, 404)
    assert b"root:" not in content
    assert b"import" not in content


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(client: Client, method: str) -> None:
    assert client.send(method, "api/store")[0] == 405


def test_a_form_of_another_page_cannot_post(client: Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert client.send("POST", "api/rows", b'{"filter": {}}', content_type=kind)[0] == 415


def test_large_bodies_are_refused(client: Client) -> None:
    stated = {"content_type": "application/json", "content_length": str(LARGEST_BODY_BYTES + 1)}
    assert client.send("POST", "api/rows", b"{}", **stated)[0] == 413
    connection = http.client.HTTPConnection(client.host, client.port, timeout=30)
    chunks = (b" " * 100_000 for _ in range(LARGEST_BODY_BYTES // 100_000 + 2))  # without a stated length
    connection.request(
        "POST", f"{client.root}api/rows", chunks, {"content-type": "application/json"}, encode_chunked=True
    )
    assert connection.getresponse().status == 413
    connection.close()


REFUSED_SQL = [
    "DROP TABLE items",
    "INSERT INTO items SELECT * FROM items",
    "DELETE FROM items",
    "UPDATE items SET id = 'x'",
    "CREATE TABLE x AS SELECT 1",
    "COPY items TO '{place}'",
    "ATTACH '{place}'",
    "SELECT 1; DROP TABLE items",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_parquet('{store}/maps/*.parquet')",
    "SELECT * FROM glob('/*')",
    "WITH gone AS (DELETE FROM items RETURNING n) SELECT * FROM gone",
    "SELECT 1) UNION ALL (SELECT 2",
    "",
]


@pytest.mark.parametrize("query", REFUSED_SQL)
def test_sql_that_is_not_one_select_over_this_store_is_refused(
    client: Client, store: Path, tmp_path: Path, query: str
) -> None:
    place = tmp_path / "written"
    assert client.error("sql", {"query": query.format(place=place, store=store)})
    assert not place.exists()
    table, _ = client.arrow("sql", {"query": "SELECT count(*) AS n FROM items"})
    assert table["n"][0].as_py() == len(heatlas.open(str(store)))


def test_a_condition_reaches_no_file_and_stays_one_condition(client: Client) -> None:
    for sql in (
        "1 = 1) OR (1 = 1",
        "true; DROP TABLE items",
        "n IN (SELECT 1 FROM read_text('/etc/passwd'))",
        "ebpg < ?",
        "nonsense(",
        "true UNION SELECT 1",
    ):
        assert client.error("rows", {"filter": {"sql": sql}}), sql


def test_long_and_large_queries_are_refused(client: Client) -> None:
    assert "at most" in client.error("sql", {"query": "SELECT 1 -- " + "x" * 30_000})
    assert "more than 100,000 rows" in client.error("sql", {"query": "SELECT * FROM range(100001)"})


def test_a_query_that_takes_too_long_is_stopped(store: Path) -> None:
    table = ViewRows(heatlas.open(str(store)))
    begun = time.monotonic()
    with pytest.raises(UsageError, match="took longer than"), table.cursor(seconds=0.3) as cursor:
        cursor.execute(
            "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range = -1"
        ).fetchall()
    assert time.monotonic() - begun < 60
    assert table.ask("SELECT 1 AS one") == [{"one": 1}]
    table.close()


BAD_REQUESTS: list[tuple[str, Any, str]] = [
    ("rows", {"filter": []}, "must be an object"),
    ("rows", {"filter": {"lable": [1]}}, "did you mean 'label'"),
    ("rows", {"filter": {"label": ["1"]}}, "label must be a list"),
    ("rows", {"filter": {"label": [True]}}, "label must be a list"),
    ("rows", {"filter": {"label": [2**40]}}, "class indices"),
    ("rows", {"filter": {"ranges": {"ebpg": [0]}}}, r"\[low, high\]"),
    ("rows", {"filter": {"ranges": {"ebpg": ["0", 1]}}}, r"\[low, high\]"),
    ("rows", {"filter": {"ranges": {'e"bpg': [0, 1]}}}, "no histogram"),
    ("rows", {"filter": {"outcome": "right"}}, "choose correct"),
    ("rows", {"filter": {}, "sort": "ebgp"}, "did you mean 'ebpg'"),
    ("rows", {"filter": {}, "sort": "id; DROP TABLE items"}, "cannot sort"),
    ("rows", {"filter": {}, "start": -1}, "whole number"),
    ("rows", {"filter": {}, "count": 1.5}, "whole number"),
    ("rows", {"filter": {"targets": "some"}}, "'main' or 'all'"),
    ("rows", [], "must be a JSON object"),
    ("select", {"filter": {}, "columns": ["nothing"]}, "no histogram"),
    ("select", {"filter": {}, "columns": "ebpg"}, "list of names"),
    ("maps", {"rows": list(range(1000))}, "at most 600"),
    ("maps", {"rows": ["0"]}, "row numbers"),
    ("sql", {"query": 3}, "must be text"),
]


@pytest.mark.parametrize(("path", "asked", "message"), BAD_REQUESTS)
def test_what_does_not_make_sense_is_said(client: Client, path: str, asked: Any, message: str) -> None:
    import re

    assert re.search(message, client.error(path, asked))


def test_rows_that_are_not_there_are_said(client: Client) -> None:
    assert client.send("GET", "api/detail/99999")[0] == 400
    assert client.send("GET", "api/map/99999")[0] == 404
    assert client.post("maps", {"rows": [-5]})[0] == 404


def test_the_body_must_be_json(client: Client) -> None:
    for body in (b"", b"{", b"\xff\xfe"):
        assert client.send("POST", "api/rows", body, content_type="application/json")[0] == 400


def test_tokens_differ_and_the_server_listens_on_loopback_only(store: Path, client: Client) -> None:
    other = start_view(str(store))
    try:
        assert other.url.startswith("http://127.0.0.1:")
        assert urlsplit(other.url).path != client.root
        assert len(client.root) > 24
    finally:
        other.stop()
