"""`heatlas view`: open a store and serve its page on loopback until interrupted."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ...errors import UsageError
from ..store.reader import StoreReader, open_store

HOST = "127.0.0.1"
START_SECONDS = 30.0
_RUNNING: list[tuple[str, ViewServer]] = []
"""The servers of this process with their stores' places, in the order of their start."""


@dataclass(frozen=True)
class ViewServer:
    """A server that runs in a thread of this process."""

    url: str = field(repr=False)
    """With the token; whoever has it may read the store and record decisions."""
    _server: object = field(repr=False)
    _thread: threading.Thread = field(repr=False)
    _close: Callable[[], None] = field(repr=False)

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.should_exit = True  # pyright: ignore[reportAttributeAccessIssue]
        self._thread.join(10)
        self._close()
        _RUNNING[:] = [entry for entry in _RUNNING if entry[1] is not self]

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def _repr_html_(self) -> str:
        from markupsafe import Markup

        return str(
            Markup('<a href="{}" target="_blank" rel="noopener">Open the view of this store</a>').format(self.url)
        )


def start_view(
    out: str | os.PathLike[str] | StoreReader,
    *,
    port: int = 0,
    method: str | None = None,
    compare: str | os.PathLike[str] | StoreReader | None = None,
    who: str | None = None,
    trust_code: bool = False,
) -> ViewServer:
    """Load a store and serve it on 127.0.0.1.

    Args:
        out: Directory or URI of a run's store, or the store opened.
        port: 1 to 65535; 0 for a free one.
        method: Whose rows, where the store has several; None for the method with the most.
        compare: Another store over the same images, shown beside it; None for none.
        who: Name of the decisions made in the page; None for the user of this process.
        trust_code: Whether a source written in Python, which the store names, may be run to read its images.

    Raises:
        UsageError: If the extra `view` is missing, or the port is out of range or taken.
        StorageError: If the store cannot be read.
    """
    try:
        import uvicorn

        from .app import ViewApp
    except ImportError as error:
        raise UsageError(f"heatlas view needs the extra `view` ({error.name} is missing): pip install 'heatlas[view]'") from None  # fmt: skip
    from .decision_book import DecisionBook
    from .guard import LoopbackGuard, new_token
    from .images import RowImages
    from .second_store import SecondStore
    from .view_rows import ViewRows

    listening = _listen(port)
    try:
        atlas = out if isinstance(out, StoreReader) else open_store(out)
        other = None if compare is None else compare if isinstance(compare, StoreReader) else open_store(compare)
        other_table = None if other is None else ViewRows(other)
        table = ViewRows(atlas, method, other_table)
        token = new_token()
        images, book = RowImages(atlas, table, trust_code=trust_code), DecisionBook(atlas, table, who=who)
        second = None
        if other is not None and other_table is not None:
            second = SecondStore(other_table, RowImages(other, other_table))
        app = LoopbackGuard(ViewApp(table, images, book, second, trust_code=trust_code).starlette(), token)
    except BaseException:
        listening.close()
        raise

    def close() -> None:
        table.close()
        if second is not None:
            second.table.close()

    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True, name="heatlas view")
    thread.start()
    end = time.monotonic() + START_SECONDS
    while not server.started and thread.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    view = ViewServer(f"http://{HOST}:{listening.getsockname()[1]}/{token}/", server, thread, close)
    _RUNNING.append((atlas.uri, view))
    return view


def running_view(uri: str) -> ViewServer | None:
    """The newest server of a store that still runs in this process; None without one."""
    return next((server for place, server in reversed(_RUNNING) if place == uri), None)


def _listen(port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise UsageError(f"--port must be from 0 to 65535, got {port}; leave it out for a free one")
    listening = socket.socket()
    if os.name == "posix":  # a port that a view just left, whose last connections the system still remembers
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise UsageError(f"port {port} cannot be used ({error.strerror}); leave --port out for a free one") from None
    return listening
