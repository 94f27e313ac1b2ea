"""The `heatlas` command: its subcommands, how errors are told, and exit codes.

Exit codes: 0 done, 1 the run failed, 2 the request cannot be carried out as written, 130 interrupted, 143 ended by SIGTERM before the run began.
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
from ..evaluate.settings import EXECUTION
from ..full_devices import discard_unwritten, guarded_streams
from ..settings.run import leaves
from ..terminal_log import shown_in_terminal
from ..text import harmless
from .annotate import annotate_command
from .bank import SETTINGS as BANK_SETTINGS
from .bank import TEXTS as BANK_TEXTS
from .bank import bank_command
from .choose import SETTINGS as CHOOSE_SETTINGS
from .choose import TEXTS as CHOOSE_TEXTS
from .choose import choose_command
from .cluster import cluster_command
from .command import Command
from .compact import compact_command
from .compare import compare_command
from .components import components_command
from .curate import curate_command
from .decide import decide_command
from .demo import demo_command
from .edge import edge_command
from .evaluate import evaluate_command
from .explain import explain_command
from .export import export_command
from .fix import fix_command
from .help_text import HelpFormatter
from .imported import DEFAULTS as IMPORT_DEFAULTS
from .imported import SETTINGS as IMPORT_SETTINGS
from .imported import TEXTS as IMPORT_TEXTS
from .imported import import_command
from .intervene import intervene_command
from .layers import layers_command
from .methods import methods_command
from .metrics import metrics_command
from .migrate import migrate_command
from .narrate import narrate_command
from .plan import plan_command
from .report import report_command
from .show import show_command
from .spread import spread_command
from .status import status_command
from .summary import summary_command
from .termination import ending_at_sigterm
from .train import SETTINGS as TRAIN_SETTINGS
from .train import TEXTS as TRAIN_TEXTS
from .train import train_command
from .usage_errors import usage_text
from .verdict import verdict_command
from .verify import verify_command
from .view import view_command

ALL_SETTINGS = tuple(leaves())
COMMANDS = {
    "explain": Command(explain_command, ALL_SETTINGS),
    "plan": Command(plan_command, ALL_SETTINGS),
    "bank": Command(bank_command, BANK_SETTINGS, BANK_TEXTS),
    "train": Command(train_command, TRAIN_SETTINGS, TRAIN_TEXTS),
    "import": Command(import_command, IMPORT_SETTINGS, IMPORT_TEXTS, IMPORT_DEFAULTS),
    "evaluate": Command(evaluate_command, EXECUTION),
    "choose": Command(choose_command, CHOOSE_SETTINGS, CHOOSE_TEXTS),
    "curate": Command(curate_command),
    "cluster": Command(cluster_command),
    "components": Command(components_command),
    "decide": Command(decide_command),
    "intervene": Command(intervene_command),
    "spread": Command(spread_command),
    "annotate": Command(annotate_command),
    "narrate": Command(narrate_command),
    "edge": Command(edge_command),
    "report": Command(report_command),
    "compare": Command(compare_command),
    "fix": Command(fix_command),
    "verdict": Command(verdict_command),
    "view": Command(view_command),
    "export": Command(export_command),
    "compact": Command(compact_command),
    "migrate": Command(migrate_command),
    "layers": Command(layers_command),
    "methods": Command(methods_command),
    "metrics": Command(metrics_command),
    "show": Command(show_command),
    "status": Command(status_command),
    "summary": Command(summary_command),
    "verify": Command(verify_command),
    "demo": Command(demo_command),
}
"""Every subcommand by name, in the order in which help lists them."""
USAGE_ERROR = 2
INTERRUPTED = 130


def build_app(argv: Sequence[str] = ()) -> App:
    """The command-line application with all its subcommands.

    Options are made ready for the subcommands in `argv` only, which saves a quarter of a second; of the methods' settings the help shows
    those of the method in `argv`. Without `argv` all are ready.
    """
    app = App(
        name="heatlas",
        version=__version__,
        help="Explain whole image data sets: attribution maps and metrics as Parquet, on Ray.\n\nStart with `heatlas demo --out demo-out`.",
        help_format="plaintext",
        help_formatter=HelpFormatter(),
        suppress_keyboard_interrupt=False,
    )
    method = chosen_method(argv)
    for order, (name, command) in enumerate(COMMANDS.items()):
        ready = not argv or name in argv
        app.command(command.for_method(method) if ready else command.listed(), name=name, sort_key=order)
    return app


def chosen_method(argv: Sequence[str]) -> str:
    """The value of the last `--method` on the command line, or the default."""
    chosen = "sise"
    for place, word in enumerate(argv):
        if word == "--method" and place + 1 < len(argv):
            chosen = argv[place + 1]
        elif word.startswith("--method="):
            chosen = word.removeprefix("--method=")
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `argv` is without the program's name."""
    with ending_at_sigterm(), guarded_streams() as printed, shown_in_terminal():
        code = told(lambda: run(list(sys.argv[1:] if argv is None else argv)))
        printed.flush()
    if printed.failure is None:
        return code
    discard_unwritten()
    return code or complain(
        f"the output could not be printed ({printed.failure.strerror}); what was to be done is done", 1
    )


def run(argv: list[str]) -> int:
    code = build_app(argv)(argv, exit_on_error=False, print_error=False, result_action="return_value")
    return code if isinstance(code, int) else 0


def told(action: Callable[[], int]) -> int:
    """Run `action`; an error becomes one clear message on stderr and the exit code that belongs to it."""
    try:
        return action()
    except CycloptsError as error:
        return complain(usage_text(error), USAGE_ERROR)
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
