# SPDX-License-Identifier: MIT
"""Avocado's tests as forks: a test that ends, however it ends, has a result and a log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from l2gate.plugins import spawner

#: Each test ends in another way; a second process cannot be forgotten, for it writes its number.
_TESTS = """
import os, signal, sys, time
from avocado import Test

class Ends(Test):
    timeout = 60
    def test_well(self):
        print("said to stdout")
        self.log.info("logged %d", os.getppid())
    def test_with_a_failure(self):
        self.fail("it is wrong")
    def test_cancelled(self):
        self.cancel("not here")
    def test_killed(self):
        os.kill(os.getpid(), signal.SIGKILL)
    def test_gone(self):
        os._exit(3)

class Hangs(Test):
    timeout = 1
    def test_for_ever(self):
        time.sleep(600)
"""

_WELL = "test_well"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job of such tests."""
    folder = tmp_path_factory.mktemp("spawner")
    return _run(folder, "Ends", "Hangs")


def _run(folder: Path, *classes: str, options: tuple[str, ...] = ()) -> Path:
    file = folder / "ends.py"
    file.write_text(_TESTS)
    wanted = [f"{file}:{name}" for name in classes]
    command = [sys.executable, "-m", "avocado", "run", "--job-results-dir", str(folder / "jobs")]
    subprocess.run([*command, *options, *wanted], timeout=60, capture_output=True, check=False)
    return (folder / "jobs" / "latest").resolve()


def _results(job: Path) -> Mapping[str, Mapping[str, Any]]:
    told = json.loads((job / "results.json").read_text())["tests"]
    return {test["name"].rpartition(".")[2]: test for test in told}


def _log(job: Path, test: str) -> str:
    return Path(_results(job)[test]["logfile"]).read_text()


@pytest.mark.parametrize(
    ("test", "status", "reason"),
    [
        ("test_well", "PASS", ""),
        ("test_with_a_failure", "FAIL", "it is wrong"),
        ("test_cancelled", "CANCEL", "not here"),
    ],
)
def test_a_test_that_ends_says_how(job: Path, test: str, status: str, reason: str) -> None:
    result = _results(job)[test]
    assert result["status"] == status
    assert reason in str(result["fail_reason"])


@pytest.mark.parametrize(("test", "how"), [("test_killed", "SIGKILL"), ("test_gone", "code 3")])
def test_a_test_whose_process_is_gone_is_an_error(job: Path, test: str, how: str) -> None:
    result = _results(job)[test]
    assert result["status"] == "ERROR"
    assert how in result["fail_reason"]


def test_a_test_that_hangs_is_ended_by_its_timeout(job: Path) -> None:
    result = _results(job)["test_for_ever"]
    assert result["status"] == "INTERRUPTED"
    assert result["time_elapsed"] < 10


def test_what_a_test_says_and_logs_is_kept(job: Path) -> None:
    log = _log(job, _WELL)
    assert "said to stdout" in log
    assert "logged " in log


def test_another_spawner_that_is_asked_for_is_taken(tmp_path: Path, job: Path) -> None:
    other = _run(tmp_path, f"Ends.{_WELL}", options=("--spawner", "process"))
    assert _results(other)[_WELL]["status"] == "PASS"
    taken = f"spawner': '{spawner.NAME}'"
    assert taken in (job / "job.log").read_text()
    assert taken not in (other / "job.log").read_text()
