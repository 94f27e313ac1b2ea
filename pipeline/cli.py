"""The `heatlas` command: its subcommands, how errors are told, and exit codes.

Exit codes: 0 done, 1 the run failed, 2 the request cannot be carried out as written, 130 interrupted.
Nothing here imports torch or Ray, so that help and usage errors come at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError

from .. import __version__
from ..engine.errors import HeatlasError
from .cli_bank import bank
from .cli_cluster import cluster
from .cli_commands import demo, layers, show, status, verify
from .cli_compact import compact
from .cli_compare import compare
from .cli_curate import curate
from .cli_evaluate import evaluate
from .cli_explain import explain
from .cli_export import export
from .cli_methods import methods
from .cli_metrics import metrics, summary
from .cli_plan import plan
from .cli_report import report
from .wording import harmless

USAGE_ERROR = 2
INTERRUPTED = 130


def build_app() -> App:
    """The command-line application with all its subcommands."""
    app = App(
        name="heatlas",
        version=__version__,
        help="Explain whole image datasets: SISE maps and metrics as Parquet, on Ray.",
        help_epilogue="Start with `heatlas demo --out demo-out`, or see `heatlas explain --help`.",
        suppress_keyboard_interrupt=False,
    )
    for command in (
        explain, plan, bank, evaluate, curate, cluster, report, compare, export, compact, layers, methods, metrics, show, status, summary, verify, demo,
    ):  # fmt: skip
        app.command(command)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `argv` is without the program's name."""
    return told(lambda: run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    code = build_app()(argv, exit_on_error=False, print_error=False, result_action="return_value")
    return code if isinstance(code, int) else 0


def told(action: Callable[[], int]) -> int:
    """Run `action`; an error becomes one clear message on stderr and the exit code that belongs to it."""
    try:
        return action()
    except CycloptsError as error:
        return complain(f"{error}\nSee `{' '.join(['heatlas', *(error.command_chain or ())])} --help`.", USAGE_ERROR)
    except HeatlasError as error:
        return complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return complain("interrupted; what is committed stays, and the same command resumes there", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        return complain(
            f"unexpected {type(error).__name__} at {where}: {error}\nHEATLAS_DEBUG=1 shows the traceback.", 1
        )


def complain(message: str, code: int) -> int:
    if os.environ.get("HEATLAS_DEBUG"):
        traceback.print_exc()
    print(f"heatlas: error: {harmless(message)}", file=sys.stderr)
    return code
