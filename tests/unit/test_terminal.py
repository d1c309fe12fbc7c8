# SPDX-License-Identifier: MIT
"""What a passing run prints does not puzzle: what stopped by design is said to."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from l2gate.contract.case_result import VcpuCase
from l2gate.report import provenance
from l2gate.report.result import Result
from l2gate.report.terminal import show
from l2gate.report.words import afterwards, deviation, ranges
from making import vcpu
from recording import recorded, result_of
from rich.console import Console


def shown(result: Result, *, quiet: bool = False) -> str:
    file = io.StringIO()
    show(Console(file=file, width=200, highlight=False), result, quiet=quiet)
    return file.getvalue()


def test_quiet_is_what_is_wrong_and_the_verdict(green: dict[str, Any]) -> None:
    assert shown(result_of(green), quiet=True).splitlines() == [
        line for line in shown(result_of(green)).splitlines() if line.startswith("verdict")
    ]
    red = result_of(recorded("unpatched-on-amd"))
    quiet = shown(red, quiet=True)
    assert "again " in quiet and "kernel  " not in quiet


@pytest.fixture
def green() -> dict[str, Any]:
    return recorded("patched-on-amd")


def test_l1_that_qemu_stops_by_design_is_not_told_as_dead(green: dict[str, Any]) -> None:
    stopped = [c for c in green["cases"] if c.get("qemu") == "internal-error"]
    assert len(stopped) == 1 and stopped[0]["verdict"] == "pass"
    text = shown(result_of(green))
    assert "NOT ALIVE" not in text and "did not go on" not in text
    assert text.count("by design") == 1
    (case,) = [
        c for c in result_of(green).cases if isinstance(c, VcpuCase) and c.qemu == "internal-error"
    ]
    assert "by design" in afterwards(case)


def test_l1_that_qemu_stops_without_a_refusal_is_not_by_design(green: dict[str, Any]) -> None:
    case = vcpu(path="mce", qemu="internal-error", errno="EINVAL", verdict="fail")
    assert afterwards(case) == "QEMU stopped L1 (internal-error)"
    assert "design" not in afterwards(vcpu(path="mce", qemu="internal-error"))


def test_vectors_that_went_alike_are_one_row_and_others_have_their_own(
    green: dict[str, Any],
) -> None:
    rows = [line for line in shown(result_of(green)).splitlines() if " EINVAL " in line]
    assert len(rows) == 2 and rows[0].startswith("3 exceptions: 13-14, 18")
    for case in green["cases"]:
        if case["vector"] == 14 and "table" not in case:
            case["proof"]["unchanged"] = False
    rows = [line for line in shown(result_of(green)).splitlines() if " EINVAL " in line]
    assert any(row.startswith("vector 14 #PF") and "CHANGED" in row for row in rows)


def test_what_is_skipped_is_told_once_for_each_reason(green: dict[str, Any]) -> None:
    lines = [line for line in shown(result_of(green)).splitlines() if line.startswith("skipped")]
    skipped = Counter(t["reason"] for t in green["tests"] if t["verdict"] == "skip")
    assert len(lines) == len(skipped) and not any("hint:" in line for line in lines)


def test_ways_that_had_no_case_have_no_row(green: dict[str, Any]) -> None:
    assert "\ngdbstub " not in shown(result_of(green))


def test_where_the_result_comes_from_is_in_two_lines(green: dict[str, Any]) -> None:
    result = replace(result_of(green), provenance=provenance.here())
    text = shown(result)
    for line in provenance.here().lines()[1:]:
        assert f"from      {line}" in text
    assert f"asked     {result.provenance.started}" in text  # type: ignore[union-attr]
    assert provenance.version_line() in text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("gd seen set, gd wanted clear", "DR7.GD set, wanted: DR7.GD clear"),
        ("who seen exit, who wanted nobody", "L1 gets a VM-exit, wanted: nobody gets it"),
        ("errno seen none (accepted), errno wanted EINVAL",
         "accepted, wanted: refused with EINVAL"),
        ("something of another shape", "something of another shape"),
    ],
)  # fmt: skip
def test_deviations_are_told_in_plain_words(text: str, plain: str) -> None:
    assert deviation(text, "L2") == plain


def test_ranges() -> None:
    assert ranges([]) == "" and ranges([4]) == "4"
    assert ranges([0, 1, 3, 4, 5, 9]) == "0-1, 3-5, 9"
