"""A real S3 server on loopback for tests: moto in a process of its own, and a proxy before it that fails when told to."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

from .faulty_proxy import __file__ as PROXY
from .tiny_run import wait_until

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "2",
    "NO_PROXY": "127.0.0.1",
}


class S3Place:
    """A running server behind its proxy; `environment` is all that a client needs."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.port, self.backend = free_port(), free_port()
        self.environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.backend)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._proxy: subprocess.Popen[bytes] | None = None
        assert wait_until(lambda: listens(self.backend)), "moto did not start"
        self.start()

    @property
    def log(self) -> pathlib.Path:
        return self.folder / "requests.log"

    def start(self, *, every: int = 0, faults: str = "") -> None:
        """Start the proxy; it fails every so manyth request in these ways, one after the other."""
        self.log.write_text("")
        how = [str(every), faults] if every else []
        self._proxy = subprocess.Popen([sys.executable, PROXY, str(self.port), str(self.backend), str(self.log), *how])
        assert wait_until(lambda: listens(self.port)), "the proxy did not start"

    def kill(self) -> None:
        """SIGKILL the proxy: connections break, new ones are refused."""
        if self._proxy:
            self._proxy.kill()
            self._proxy.wait(30)
            self._proxy = None

    @contextlib.contextmanager
    def failing(self, every: int, faults: str) -> Iterator[None]:
        self.kill()
        self.start(every=every, faults=faults)
        try:
            yield
        finally:
            self.kill()
            self.start()

    def make_bucket(self, name: str) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.backend}/{name}", method="PUT")
        no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with no_proxy.open(request, timeout=60) as reply:
            assert reply.status == 200

    def requests(self) -> list[list[str]]:
        """Method, path, fault, If-None-Match, If-Match of every request since the proxy was started."""
        return [line.split(" ") for line in self.log.read_text().splitlines()]

    def close(self) -> None:
        self.kill()
        self._server.kill()
        self._server.wait(30)


def free_port() -> int:
    with socket.socket() as entry:
        entry.bind(("127.0.0.1", 0))
        return entry.getsockname()[1]


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
