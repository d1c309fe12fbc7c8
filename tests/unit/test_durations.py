# SPDX-License-Identifier: MIT
"""What took how long is a guess: a cache that is broken or read-only costs no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from l2gate.report.durations import Durations


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("L2GATE_STATE", str(tmp_path))
    return tmp_path / "runs/seconds.json"


def test_what_was_noted_is_known_the_next_time(file: Path) -> None:
    Durations("runs").note("a", 1.26)
    assert (Durations("runs").known("a"), Durations("runs").known("b")) == (1.3, None)
    assert [one.name for one in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("text", ["", "{", "[1]", '"a"', '{"a": "x", "b": -1, "c": null}'])
def test_a_broken_file_is_as_none_and_is_repaired(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    durations = Durations("runs")
    assert durations.guess("a", 7.0) == 7.0
    durations.note("a", 2.0)
    assert json.loads(file.read_text()) == {"a": 2.0}


def test_two_jobs_keep_each_other_s(file: Path) -> None:
    one, other = Durations("runs"), Durations("runs")
    one.note("a", 1.0)
    other.note("b", 2.0)
    assert json.loads(file.read_text()) == {"a": 1.0, "b": 2.0}


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("L2GATE_STATE", str(tmp_path / "file"))
    durations = Durations("runs")
    durations.note("a", 1.0)
    assert durations.known("a") == 1.0
