"""SIGTERM before a run: exit code 143 and not a word, wherever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from heatlas.pipeline.cli.termination import TERMINATED, ending_at_sigterm

CASES = {
    "work": "time.sleep(30)",
    "an import": "import slow_module",
    "swallowed": "\n    try:\n        time.sleep(30)\n    except BaseException:\n        pass\n    send()\n    time.sleep(30)",
}
PROGRAM = """
import os, signal, threading, time
from heatlas.pipeline.cli.termination import ending_at_sigterm

def send():
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

with ending_at_sigterm():
    send()
    {body}
print("went on")
"""


@pytest.mark.parametrize("case", CASES)
def test_it_ends_with_143_and_no_traceback(case, tmp_path):
    (tmp_path / "slow_module.py").write_text("import time\ntry:\n    time.sleep(30)\nexcept BaseException:\n    pass\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=CASES[case])],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert (done.returncode, done.stdout, done.stderr) == (TERMINATED, "", "")


def test_what_was_begun_is_cleaned_up_and_a_handler_of_others_stays():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # another test's Ray may have left its own
    cleaned = []

    def work() -> None:
        with ending_at_sigterm():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                signal.sigtimedwait([signal.SIGUSR1], 5)
            finally:
                cleaned.append(True)

    try:
        with pytest.raises(SystemExit) as ended:
            work()
        assert ended.value.code == TERMINATED == 143
        assert cleaned == [True]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with ending_at_sigterm():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
