"""Progress: what is counted, what is shown, what is logged."""

from __future__ import annotations

import io
import json
import pathlib

import fsspec
import pytest
from heatlas.pipeline.explain.event_log import EventLog
from heatlas.pipeline.explain.progress import RunProgress, event_text, line
from heatlas.pipeline.terminal_log import LOG, shown_in_terminal
from heatlas.pipeline.text import duration
from heatlas.workers.events import (
    ImageQuarantined,
    RunStopping,
    ShardDone,
    ShardFinished,
    ShardGivenUp,
    ShardProgress,
    ShardStarted,
    WorkerLost,
    WorkersChanged,
)
from heatlas.workers.run_totals import RunTotals

DIED = WorkerLost(worker=1, kind="died", text="SIGSEGV", shard=4, alive=("a", "b"))


def finished(shard: int, first: bool = True, **statuses: int) -> ShardFinished:
    return ShardFinished(
        shard, 0, ShardDone(rows=sum(statuses.values()), images=sum(statuses.values()), first=first, statuses=statuses)
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_tally_counts_by_hand():
    totals = RunTotals(images=40, before=10)
    events = [
        WorkersChanged(0, 2),
        WorkersChanged(2, 0),
        ShardStarted(3, 0, careful=False),
        ShardStarted(4, 1, careful=False),
        ShardProgress(3, 0, 4),
        ShardProgress(4, 1, 2),
    ]
    for at, event in enumerate(events):
        totals.observe(event, float(at))
    assert (totals.ready, totals.pending, totals.finished) == (2, 0, 16)
    assert totals.rate(5.0) == pytest.approx(6 / 3), "since the first shard started at second 2"
    assert totals.seconds_left(5.0) == pytest.approx(24 / 2)
    totals.observe(DIED, 6.0)
    assert (totals.finished, totals.deaths) == (14, 1), "the dead worker's shard starts over"
    totals.observe(finished(3, ok=8, decode_error=2), 7.0)
    totals.observe(finished(4, first=False, ok=9, quarantined=1), 8.0)
    totals.observe(ImageQuarantined(4, "a"), 8.0)
    totals.observe(ShardGivenUp(5, "why"), 8.0)
    assert (totals.rows, totals.errors, totals.quarantined, totals.undone) == (20, 3, ["a"], [(5, "why")])
    assert totals.finished == 30


def test_no_rate_before_the_first_image():
    totals = RunTotals(images=3)
    assert totals.rate(5.0) is None
    totals.observe(ShardStarted(0, 0, careful=False), 5.0)
    assert totals.rate(6.0) is None
    assert line(totals, 6.0) == "workers 0 ready"


def test_line_tells_speed_errors_deaths_and_workers():
    totals = RunTotals(images=100, first_image=0.0, ready=2, pending=1)
    totals.observe(finished(0, ok=19, read_error=1), 10.0)
    totals.observe(DIED, 10.0)
    assert line(totals, 10.0) == "2 images/s, 40 s left, 1 error, 1 worker death, workers 2 ready 1 starting"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (273600, "3 d 4 h")],
)
def test_duration(seconds: float, text: str):
    assert duration(seconds) == text


def test_only_what_someone_may_act_on_is_announced():
    assert event_text(DIED) == "worker 1 lost on shard 4 (died): SIGSEGV, images in work: a, b"
    assert event_text(ShardGivenUp(7, "died 3 times")) == "shard 7 given up: died 3 times"
    assert event_text(RunStopping("too many errors")) == "stopping: too many errors"
    assert "'x' was in work at three worker deaths" in (event_text(ImageQuarantined(1, "x")) or "")
    assert event_text(WorkersChanged(1, 0)) is None


def test_plain_lines_come_every_ten_seconds_and_at_the_end(tmp_path: pathlib.Path):
    times = iter([0.0, *[step * 4.0 for step in range(1, 100)]])
    stream = io.StringIO()
    with (
        shown_in_terminal(stream),
        RunProgress(RunTotals(images=6), EventLog(str(tmp_path)), clock=lambda: next(times)) as progress,
    ):
        progress(ShardStarted(0, 0, careful=False))
        for done in range(1, 6):
            progress(ShardProgress(0, 0, done))
        progress(finished(0, ok=6))
    lines = stream.getvalue().splitlines()
    assert all(line.startswith("heatlas: ") for line in lines)
    assert 2 < len(lines) < 8
    assert lines[-1].startswith("heatlas: 6/6 images, ")
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_gets_a_live_bar(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with shown_in_terminal(stream), RunProgress(RunTotals(images=6), EventLog(str(tmp_path))) as progress:
        progress(ShardStarted(0, 0, careful=False))
        progress(DIED)
        progress(finished(0, ok=3))
    shown = stream.getvalue()
    assert "\x1b" in shown
    assert "3/6" in shown
    assert "worker 1 lost on shard 4" in shown


def test_shards_dropped_by_stopping_get_no_line_each(tmp_path: pathlib.Path):
    stream = io.StringIO()
    with shown_in_terminal(stream), RunProgress(RunTotals(images=9), EventLog(str(tmp_path))) as progress:
        progress(ShardGivenUp(0, "died too often"))
        progress(RunStopping("interrupted"))
        for shard in range(1, 4):
            progress(ShardGivenUp(shard, "not begun"))
    assert "died too often" in stream.getvalue()
    assert "stopping: interrupted" in stream.getvalue()
    assert "not begun" not in stream.getvalue()


def test_sample_ids_are_shown_as_written(tmp_path: pathlib.Path):
    stream = io.StringIO()
    with shown_in_terminal(stream), RunProgress(RunTotals(images=1), EventLog(str(tmp_path))) as progress:
        progress(ImageQuarantined(0, "[bold]a/[/x]"))
        progress(ImageQuarantined(0, "a\x1b[2Jb"))
    assert "[bold]a/[/x]" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("place", ["local", "memory://logs-test/run"])
def test_events_are_logged_as_json_lines(place: str, tmp_path: pathlib.Path):
    out = str(tmp_path) if place == "local" else place
    log = EventLog(out)

    def broken_run() -> None:
        with RunProgress(RunTotals(images=6), log) as progress:
            progress(ShardProgress(0, 0, 1))
            progress(finished(0, ok=6))
            raise RuntimeError("broke")

    with pytest.raises(RuntimeError, match="broke"):
        broken_run()
    with fsspec.open(log.uri, "rt") as file:
        records = [json.loads(text) for text in file.read().splitlines()]  # pyright: ignore[reportAttributeAccessIssue]
    assert [record["event"] for record in records] == ["ShardFinished", "RunFailed"]
    assert records[0]["done"]["statuses"] == {"ok": 6}
    assert records[1]["text"] == "broke"
    assert all(record["time"].endswith("+00:00") for record in records)


def test_a_log_that_cannot_be_written_does_not_stop_the_run(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "_logs").write_text("a file where the folder should be")
    with RunProgress(RunTotals(images=1), EventLog(str(tmp_path))) as progress:
        progress(finished(0, ok=1))
        progress(finished(1, ok=1))
    assert caplog.text.count("the run goes on without it") == 1


def test_a_library_prints_nothing_and_logs(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO", "heatlas"), RunProgress(RunTotals(images=1), EventLog(str(tmp_path))) as progress:
        progress(DIED)
        progress(finished(0, ok=1))
    assert capsys.readouterr() == ("", "")
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("heatlas", "WARNING"),
        ("heatlas", "INFO"),
    ]
    assert "worker 1 lost" in caplog.text
    assert "1/1 images" in caplog.text


def test_the_terminal_handler_goes_as_it_came():
    before = (list(LOG.handlers), LOG.level, LOG.propagate)
    with pytest.raises(RuntimeError), shown_in_terminal(io.StringIO()):
        raise RuntimeError
    assert (LOG.handlers, LOG.level, LOG.propagate) == before
