"""A proxy in front of an S3 server that fails now and then. A process of its own, so that it can be killed and started again.

    python faulty_proxy.py PORT BACKEND_PORT LOG [EVERY FAULT,FAULT,...]

Every EVERYth request gets the next of the faults: `500`, `503`, `409` (to writes; others get 503), `cut` (the request is carried out,
the connection closed without an answer). LOG gets a line for every request: method, path, fault or `-`, If-None-Match, If-Match.
"""

from __future__ import annotations

import http.client
import itertools
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CODES = {"500": "InternalError", "503": "SlowDown", "409": "ConditionalRequestConflict"}


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend = 0
    every = 0
    faults: tuple[str, ...] = ()
    log = ""
    lock = threading.Lock()
    numbers = itertools.count(1)

    def serve(self) -> None:
        body = self.body()
        fault = self.next_fault()
        self.note(fault)
        if fault in CODES:
            return self.answer(int(fault), [("Content-Type", "application/xml")], error_document(CODES[fault]))
        connection = http.client.HTTPConnection("127.0.0.1", self.backend, timeout=60)
        try:
            connection.request(self.command, self.path, body, {**self.headers, "Connection": "close"})
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        if fault == "cut":
            self.close_connection = True
            return None
        dropped = {"connection", "transfer-encoding", "content-length", "server", "date"}
        kept = [(name, value) for name, value in reply.getheaders() if name.lower() not in dropped]
        length = reply.getheader("Content-Length") if self.command == "HEAD" else None
        return self.answer(reply.status, kept, content, length)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        result = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            result += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        del self.headers["Transfer-Encoding"]
        return result

    def next_fault(self) -> str | None:
        with self.lock:
            number = next(self.numbers)
        if not self.every or number % self.every:
            return None
        fault = self.faults[number // self.every % len(self.faults)]
        return "503" if fault == "409" and self.command != "PUT" else fault

    def note(self, fault: str | None) -> None:
        conditions = [self.headers.get(name, "-") for name in ("If-None-Match", "If-Match")]
        with self.lock, open(self.log, "a", encoding="utf-8") as log:
            log.write(" ".join([self.command, self.path, fault or "-", *conditions]) + "\n")

    def answer(self, code: int, headers: list[tuple[str, str]], body: bytes, length: str | None = None) -> None:
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def error_document(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>planted</Message></Error>".encode()


def main() -> None:
    port, backend, log, *faults = sys.argv[1:]
    Proxy.backend, Proxy.log = int(backend), log
    if faults:
        Proxy.every, Proxy.faults = int(faults[0]), tuple(faults[1].split(","))
    ThreadingHTTPServer.allow_reuse_address = True
    ThreadingHTTPServer(("127.0.0.1", int(port)), Proxy).serve_forever()


if __name__ == "__main__":
    main()
