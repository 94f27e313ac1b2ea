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

from ..._version import __version__
from ...errors import HeatlasError
from ..text import harmless
from .bank import bank_command
from .cluster import cluster_command
from .compact import compact_command
from .compare import compare_command
from .curate import curate_command
from .evaluate import evaluate_command
from .explain import explain_command
from .export import export_command
from .methods import methods_command
from .metrics import metrics_command, summary_command
from .plan import plan_command
from .report import report_command
from .status import demo_command, layers_command, show_command, status_command, verify_command

COMMANDS: dict[str, Callable[..., int]] = {
    "explain": explain_command,
    "plan": plan_command,
    "bank": bank_command,
    "evaluate": evaluate_command,
    "curate": curate_command,
    "cluster": cluster_command,
    "report": report_command,
    "compare": compare_command,
    "export": export_command,
    "compact": compact_command,
    "layers": layers_command,
    "methods": methods_command,
    "metrics": metrics_command,
    "show": show_command,
    "status": status_command,
    "summary": summary_command,
    "verify": verify_command,
    "demo": demo_command,
}
"""Every subcommand by name, in the order in which help lists them."""
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
    for name, command in COMMANDS.items():
        app.command(command, name=name)
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
