"""Requests to a server of `heatlas view`, each on a connection of its own."""

from __future__ import annotations

import http.client
import io
import json
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from heatlas.pipeline.view.serve import ViewServer


class Client:
    """Speaks to one server as its page does."""

    def __init__(self, server: ViewServer):
        parts = urlsplit(server.url)
        self.host, self.port, self.root = parts.hostname or "", parts.port or 0, parts.path

    def send(
        self, method: str, path: str, body: bytes | None = None, root: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, (self.root if root is None else root) + path, body, named)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content

    def get(self, path: str) -> Any:
        status, _, content = self.send("GET", f"api/{path}")
        assert status == 200, content
        return json.loads(content)

    def post(self, path: str, asked: Any) -> tuple[int, dict[str, str], bytes]:
        return self.send("POST", f"api/{path}", json.dumps(asked).encode(), content_type="application/json")

    def json(self, path: str, asked: Any) -> Any:
        status, _, content = self.post(path, asked)
        assert status == 200, content
        return json.loads(content)

    def arrow(self, path: str, asked: Any) -> tuple[pa.Table, dict[str, str]]:
        status, headers, content = self.post(path, asked)
        assert status == 200, content
        return pa.ipc.open_stream(io.BytesIO(content)).read_all(), headers

    def error(self, path: str, asked: Any) -> str:
        status, _, content = self.post(path, asked)
        assert status == 400, content
        return json.loads(content)["error"]
