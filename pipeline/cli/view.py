"""`heatlas view`: explore a store in a browser."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .arguments import Store


def view_command(
    store: Store,
    /,
    *,
    port: Annotated[int, Parameter(help="Port on 127.0.0.1; 0: a free one.")] = 0,
    method: Annotated[
        str | None, Parameter(help="Method of the rows, where there are several; default: the most frequent.")
    ] = None,
    compare: Annotated[
        str | None, Parameter(help="Another store over the same images, shown beside each image.")
    ] = None,
    who: Annotated[str | None, Parameter(help="Name of decisions made in the page; default: the user's.")] = None,
    trust_code: Annotated[
        bool,
        Parameter(help="Run the Python code that the store's data set came from, to read its images.", negative=()),
    ] = False,
) -> int:
    """Explore every row of a store in a browser: filter, sort, inspect maps, decide. Serves on this machine only, until Ctrl-C.

    Example: `heatlas view maps/`
    """
    from ..view.serve import start_view

    server = start_view(store, port=port, method=method, compare=compare, who=who, trust_code=trust_code)
    print(f"heatlas view: {server.url}", flush=True)
    try:
        server.wait()
    except KeyboardInterrupt:
        print("heatlas view: ended")
    finally:
        server.stop()
    return 0
