"""Progress: lines where nobody watches, bars on a terminal, reports of other processes."""

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr

import pytest

from nemoport.cli import progress as cli_progress
from nemoport.cli.progress import shown_progress
from nemoport.errors import ArtifactError
from nemoport.progress import Step, step
from nemoport.validate import workers
from nemoport.validate.nemo_process import _report


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """The seconds that `progress` sees; change the one value."""
    now = [0.0]
    monkeypatch.setattr(cli_progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def terminal(monkeypatch):
    made = Terminal()
    for name in ("CI", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return made


def test_a_step_is_a_line():
    assert str(Step("oracle: offline", 1.6, 288.2, "s of audio")) == "oracle: offline: 2 of 288 s of audio"
    assert str(Step("sensitivity", 3, 4)) == "sensitivity: 3 of 4"
    assert str(Step("export", 0)) == "export"


@pytest.mark.parametrize("done, total, ended", [(0, None, False), (1, None, True), (3, 4, False), (4, 4, True), (0, 0, True)])
def test_when_a_step_has_ended(done, total, ended):
    assert Step("x", done, total).ended is ended


def test_a_step_that_fails_does_not_end():
    reports = []
    with pytest.raises(OSError), step("export", reports.append):
        raise OSError
    assert reports == [Step("export", 0)]


def lines_of(capsys, *reports):
    with shown_progress(False) as progress:
        for report in reports:
            if callable(report):
                report()
            else:
                progress(report)
    return capsys.readouterr().err.splitlines()


def test_lines_of_a_counted_step(capsys, clock):
    """At its end, and every ten seconds before."""
    later = lambda: clock.__setitem__(0, clock[0] + 9.9)  # noqa: E731
    counts = [Step("scan", done, 5, "streams") for done in range(6)]
    found = lines_of(capsys, counts[0], later, counts[1], later, counts[2], later, counts[3], counts[4], counts[5], "x")
    assert found == ["scan: 2 of 5 streams", "scan: 5 of 5 streams", "x"]


@pytest.mark.parametrize("seconds, lines", [(1.9, ["export"]), (2.0, ["export", "export: done in 2 s"])])
def test_lines_of_a_step_of_unknown_length(capsys, clock, seconds, lines):
    assert lines_of(capsys, Step("export", 0), lambda: clock.__setitem__(0, seconds), Step("export", 1)) == lines


def test_the_same_step_may_run_again(capsys, clock):
    assert lines_of(capsys, Step("a", 0), Step("a", 1), Step("a", 0), Step("a", 1)) == ["a", "a"]


def test_quiet_prints_nothing(capsys):
    with shown_progress(True) as progress:
        progress("x")
        progress(Step("a", 0))
    assert capsys.readouterr() == ("", "")


def test_bars_of_steps_side_by_side(terminal):
    with redirect_stderr(terminal), shown_progress(False) as progress:
        progress(Step("fp32: validating", 2, 9, "gates"))
        progress(Step("int8: validating", 4, 9, "gates"))
        progress("a [line] of text, 3 of 4")
        progress(Step("int8: validating", 9, 9, "gates"))
        progress(Step("fp32: validating", 9, 9, "gates"))
        before = terminal.getvalue()
        progress("after the last")
    shown = terminal.getvalue()
    assert "fp32: validating" in before and "int8: validating" in before and "9 gates" in before
    assert "a [line] of text, 3 of 4" in before
    assert shown.endswith("after the last\n")


def test_bars_end_with_an_error(terminal):
    with pytest.raises(ArtifactError), redirect_stderr(terminal), shown_progress(False) as progress, step("export", progress):
        raise ArtifactError("damaged", expected="", found="", todo="")
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is shown again


def test_bars_from_several_threads(terminal):
    with redirect_stderr(terminal), shown_progress(False) as progress, ThreadPoolExecutor(4) as pool:
        for done in range(200):
            pool.submit(progress, Step(f"{done % 4}", done // 4, 50))
    assert all(f"{one}" in terminal.getvalue() for one in range(4))


@pytest.mark.parametrize("name, value", [("CI", "true"), ("TERM", "dumb")])
def test_no_bars_in_ci_and_on_a_dumb_terminal(terminal, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with redirect_stderr(terminal), shown_progress(False) as progress:
        progress(Step("export", 0))
    assert terminal.getvalue() == "export\n"


def test_no_color(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    with redirect_stderr(terminal), shown_progress(False) as progress:
        progress(Step("scan", 1, 4, "streams"))
    assert "scan" in terminal.getvalue() and "\x1b[3" not in terminal.getvalue()


def reporting(number):
    workers.report(Step(f"task {number}", number, 4))
    workers.report(f"line {number}")
    return number


def test_workers_report_to_the_process_that_started_them():
    reports = []
    assert workers.map_in_processes(reporting, [1, 2, 3], 2, reports.append) == [1, 2, 3]
    assert sorted(map(str, reports)) == [f"line {n}" for n in (1, 2, 3)] + [f"task {n}: {n} of 4" for n in (1, 2, 3)]


def test_what_nemos_process_reports_is_checked():
    """It may be a stranger's code by then."""
    assert _report("a\x1b[2Jb") == "a\\x1b[2Jb"
    right = {"name": "oracle", "done": 1, "total": 2.5, "unit": "s"}
    assert _report(right) == Step("oracle", 1, 2.5, "s") and _report(right | {"total": None}) == Step("oracle", 1, None, "s")
    wrong = [{"name": 3}, {"name": "a\x1b[2J"}, {"unit": "\r"}, {"done": "1"}, {"done": float("nan")}, {"total": 1e300}]
    for bad in [3, {}, *(right | one for one in wrong)]:
        with pytest.raises(ArtifactError, match="NeMo's process"):
            _report(bad)
