# SPDX-License-Identifier: MIT
"""What a person sees while a job goes on: one line a step, and no control characters in a log."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from l2gate.foundation.events import Event, StepBegan, StepEnded
from l2gate.records.descriptions import AboutTest, HostDescription
from l2gate.records.events import HostFound
from l2gate.report.progress import Progress, can_be_live
from making import judged, planned, reached, under, vcpu
from rich.console import Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2GATE_STATE", str(tmp_path))
    monkeypatch.setenv("TERM", "xterm")
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


TESTS = {"A.test_a": "refuse", "B.test_b": "payload", "C.test_c": "either", "D.test_d": "refuse"}


def job(cases: int = 100) -> Iterator[Event]:
    """A job's timeline: of its four tests one is about the other contract."""
    at = time.time()

    def step(level: str, phase: str, seconds: float) -> Iterator[Event]:
        nonlocal at
        yield StepBegan(level=level, text=phase, phase=phase, at=at)
        at += seconds
        yield StepEnded(level=level, text=phase, phase=phase, seconds=seconds, at=at)

    def verdict(test: str, value: str, seconds: float) -> Event:
        nonlocal at
        at += seconds
        return msgspec.structs.replace(reached(value, test, "quirks"), at=at)

    about = {t: AboutTest(contract=contract) for t, contract in TESTS.items()}
    yield planned(tests=list(TESTS), host="h", l2="tiny", about=about)
    yield from step("L0", "prepare", 1.0)
    yield from step("L0", "host", 20.0)
    host = HostDescription(spec="h", emulator="", virtualization="SVM", nested="1", release="6.12",
                           kvm_module="kvm_amd", cpu_model="a CPU")  # fmt: skip
    yield HostFound(level="L0", text="host", host=host)
    yield under("refuse")
    yield from step("L1", "l1", 10.0)
    for test, contract in TESTS.items():
        if contract == "payload":
            yield verdict(test, "skip", 0.0)
            continue
        for phase in ("connect", "l2", "cases"):
            yield from step("L2", phase, 1.0)
        for number in range(cases):
            value = "fail" if test == "D.test_d" and number % 2 else "pass"
            yield judged(vcpu(test=test, errno="EINVAL", verdict=value, reason="quirks"))
        yield verdict(test, "fail" if test == "D.test_d" else "pass", 2.0)
    yield from step("controller", "teardown", 1.0)


def shown(file: io.StringIO, verbose: bool = False, quiet: bool = False) -> str:
    console = Console(file=file, width=60, highlight=False)
    with Progress(console, verbose, quiet=quiet) as progress:
        for event in job():
            progress(event)
    return file.getvalue()


def test_a_log_has_one_line_for_each_step_and_test_whatever_their_cases() -> None:
    text = shown(io.StringIO())
    assert "\x1b" not in text and "\r" not in text
    lines = text.splitlines()
    assert len(lines) == 4 + 3 + 3, text  # phases; host, contract, left out; tests
    tests = [line for line in lines if line.lstrip().startswith("test ")]
    assert [re.findall(r"\d of \d  \S+", line) for line in tests] == [
        ["1 of 3  A.test_a:"], ["2 of 3  C.test_c:"], ["3 of 3  D.test_d:"],
    ]  # fmt: skip
    assert "pass, 100 cases" in tests[0] and "fail, 50 of 100 cases" in tests[2]


def test_what_remains_is_told_once_it_is_known_from_an_earlier_job() -> None:
    assert "left" not in shown(io.StringIO())
    left = re.findall(r"about (\d+):(\d\d) left", shown(io.StringIO()))
    seconds = [int(minutes) * 60 + int(rest) for minutes, rest in left]
    assert len(seconds) == 3 and seconds == sorted(seconds, reverse=True)
    assert seconds[0] == pytest.approx(2 * 5 + 1, abs=2)  # two tests, and the end


def test_verbose_shows_each_step_and_case_and_quiet_none() -> None:
    text = shown(io.StringIO(), verbose=True)
    assert text.count("inject #GP(13)") == 300 and text.count(" ...\n") == 4 + 3 * 3
    assert re.findall(r"test  (\S+)(?: of 3)?  (\S+):", text) == [
        ("1", "A.test_a"), ("-", "B.test_b"), ("2", "C.test_c"), ("3", "D.test_d"),
    ]  # fmt: skip
    assert shown(io.StringIO(), quiet=True) == ""


def test_a_terminal_has_a_line_that_goes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(Terminal())
    assert "elapsed" in text and "\x1b[2K" in text  # it is wiped
    assert "\x1b[?25h" in text  # the cursor is back


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("TERM", "dumb"), ("TERM", "unknown")])
def test_a_ci_s_terminal_and_a_dumb_one_are_logs(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert not can_be_live(Console(file=Terminal()))
    assert "\x1b[2K" not in shown(Terminal())


def test_a_pipe_is_no_terminal_even_if_it_wants_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not can_be_live(Console(file=io.StringIO()))


def test_no_color_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown(Terminal()))


def test_the_terminal_is_as_it_was_after_an_interrupt() -> None:
    file = Terminal()
    with pytest.raises(KeyboardInterrupt), Progress(Console(file=file)):
        raise KeyboardInterrupt
    assert "\x1b[?25h" in file.getvalue()
