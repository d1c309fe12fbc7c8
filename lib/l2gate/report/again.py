# SPDX-License-Identifier: MIT
"""The line that asks again: all of a run, or just some of its cases with their controls.

It is for a shell in the folder that the run was asked from: what lies below it is named from there.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from l2gate.contract.case_result import CaseResult, TableCase
from l2gate.contract.choice import Words, is_control, parse, telling, words_of
from l2gate.contract.judge import Verdict
from l2gate.foundation.settings import OPTIONS, checkout
from l2gate.records.descriptions import HostDescription, KernelDescription

#: Says what is left behind, not what is asked.
_LEFT_OUT = ("keep",)
_RUNNING = "running"

#: A case and its words.
_Told = tuple[CaseResult, Words]
#: What a control asks, however often.
_Asked = frozenset[tuple[str, str]]


class Asked(Protocol):
    """A run (l2gate/report/result.py): its settings, and what `auto` has come to."""

    @property
    def settings(self) -> Mapping[str, str]: ...
    @property
    def host(self) -> HostDescription | None: ...
    @property
    def kernel(self) -> KernelDescription | None: ...


def run_line(settings: Mapping[str, str], tests: Sequence[str] = ()) -> str:
    """Asks with those settings; a setting that has its default is left out."""
    words = [_program(), "run"]
    for option in OPTIONS:
        value = settings.get(option.name, option.default)
        if option.name not in _LEFT_OUT and value != option.default:
            words += [f"--{option.name.replace('_', '-')}", _from_here(option.name, value)]
    return shlex.join([*words, *map(_test_from_here, tests)])


def of_run(result: Asked) -> dict[str, str]:
    """The settings of a run (l2gate/report/result.py), with what `auto` has come to."""
    settings = dict(result.settings)
    if result.host:
        settings["host"] = result.host.spec
    if result.kernel and result.kernel.spec != _RUNNING:
        settings["kernel"] = result.kernel.spec
    return settings


def place(reference: str) -> str:
    """Where a test is, seen from this folder; ``reference`` is seen from the checkout."""
    return _seen_from_here(checkout() / reference)


class Again:
    """Lines for the cases of one run. ``settings`` as `of_run` gives them, ``places`` where each
    test is."""

    def __init__(
        self, settings: Mapping[str, str], places: Mapping[str, str], cases: Iterable[CaseResult]
    ) -> None:
        self._all = run_line(settings)
        self._line = shlex.split(run_line({**settings, "case": ""}))
        self._places = {name: place(reference) for name, reference in places.items()}
        self._by_test: dict[str, list[_Told]] = {}
        self._by_row: dict[tuple[str, str], list[_Told]] = {}
        for case in cases:
            told = (case, words_of(case))
            self._by_test.setdefault(case.test, []).append(told)
            self._by_row.setdefault(_row_of(told[1]), []).append(told)

    def tests(self, names: Iterable[str]) -> str:
        """Asks those tests as they were asked."""
        return shlex.join([*shlex.split(self._all), *self._where(names)])

    def line(self, cases: Sequence[CaseResult]) -> str:
        """Asks ``cases``, all of one test, and their controls, and no other failing case: if no
        words tell them all from those, the first row of them, or the first of them alone."""
        first = cases[0]
        row = [case for case in cases if _line(case) == _line(first)]
        for some in (cases, row, [first]):
            text = self._telling(some)
            if len(some) == 1 or not self._asks_another_failure(text, cases):
                break
        return shlex.join([*self._line, "--case", text, *self._where(self._tests_of(some))])

    def _where(self, names: Iterable[str]) -> list[str]:
        return [self._places[name] for name in dict.fromkeys(names) if name in self._places]

    def _tests_of(self, cases: Sequence[CaseResult]) -> list[str]:
        """Their own, and those that hold their controls; a table holds its controls itself."""
        own = cases[0].test
        if isinstance(cases[0], TableCase):
            return [own]
        asked = [words for words in map(words_of, cases) if words["active"] == "L2"]
        controls: dict[str, set[_Asked]] = {}
        for case, words in self._by_row.get(_row_of({}), ()):
            if any(is_control(words, one) for one in asked):
                same = frozenset((w, v) for w, v in words.items() if w != "repeat")
                controls.setdefault(case.test, set()).add(same)
        chosen = [own, *_fewest(controls, controls.pop(own, set()))]
        # As they came in the run: what a refused case leaves behind may be in its control's way.
        return [test for test in self._by_test if test in chosen]

    def _telling(self, cases: Sequence[CaseResult]) -> str:
        shared, mine = common(cases), {id(case) for case in cases}
        rivals = self._by_row[_row_of(shared)] if "line" in shared else self._asked_with(cases)
        return telling(shared, [words for case, words in rivals if id(case) not in mine])

    def _asked_with(self, cases: Sequence[CaseResult]) -> list[_Told]:
        return [one for test in self._tests_of(cases) for one in self._by_test[test]]

    def _asks_another_failure(self, text: str, cases: Sequence[CaseResult]) -> bool:
        choice, mine = parse(text), {id(case) for case in cases}
        return any(
            case.verdict == Verdict.FAIL and choice.takes(words)
            for case, words in self._asked_with(cases)
            if id(case) not in mine
        )


def _fewest(having: Mapping[str, set[_Asked]], there: set[_Asked]) -> list[str]:
    """As few names as have all that is not ``there`` yet, the one with the most first."""
    chosen: list[str] = []
    while left := {name: held - there for name, held in having.items() if held - there}:
        name = max(left, key=lambda one: len(left[one]))
        chosen.append(name)
        there = there | left[name]
    return chosen


def _line(case: CaseResult) -> int | None:
    return case.line if isinstance(case, TableCase) else None


def _row_of(words: Words) -> tuple[str, str]:
    """Cases that `--case` cannot confuse are in different ones; all on QEMU's vCPU are in one."""
    return words.get("table", ""), words.get("line", "")


def common(cases: Sequence[CaseResult]) -> Words:
    """The words that all of ``cases`` have."""
    all_words = [words_of(case) for case in cases]
    first = all_words[0]
    return {w: v for w, v in first.items() if all(other.get(w) == v for other in all_words)}


def _program() -> str:
    """The l2gate beside the Python that runs this; there is none if it was started otherwise."""
    beside = Path(sys.executable).parent / "l2gate"
    return _seen_from_here(beside if beside.exists() else checkout() / ".venv/bin/l2gate")


def _from_here(name: str, value: str) -> str:
    return value.replace(f"{Path.cwd()}/", "") if name == "kernel" else value


def _test_from_here(reference: str) -> str:
    file, colon, name = reference.partition(":")
    return f"{_seen_from_here(Path(file))}{colon}{name}"


def _seen_from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
