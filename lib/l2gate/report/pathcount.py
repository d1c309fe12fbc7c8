# SPDX-License-Identifier: MIT
"""What each way of injecting had in a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from l2gate.contract.case_result import CaseResult
from l2gate.contract.judge import Verdict
from l2gate.contract.paths import ALL, InjectionPath, Way
from l2gate.injection.paths import PATHS


@dataclass(frozen=True)
class PathCount:
    """A path as it is on some VMs: its ``name``, ``how`` the exception is made, whether the
    commit's check is in its way (``covered``), whether it is what `--path` chose (``chosen``), and
    how many ``cases`` it had, how many of them with L2 active and how many ``passing``."""

    name: str
    how: str
    covered: bool
    chosen: bool
    cases: int
    l2_active: int
    passing: int


def count(cases: Sequence[CaseResult], asked: str) -> list[PathCount]:
    """One for each path and way. ``asked`` is what `--path` chose."""
    return [_of(path, way, cases, asked) for path in PATHS for way in path.ways]


def _of(path: InjectionPath, way: Way, cases: Sequence[CaseResult], asked: str) -> PathCount:
    mine = [case for case in cases if case.path == path.name and case.vm in way.vms]
    return PathCount(
        name=path.name,
        how=way.how,
        covered=way.covered,
        chosen=asked in (ALL, path.name),
        cases=len(mine),
        l2_active=sum(case.active_level == "L2" for case in mine),
        passing=sum(case.verdict is Verdict.PASS for case in mine),
    )
