# SPDX-License-Identifier: MIT
"""Which test goes on which machine: beside the bench's, or on a new one after L1 was stopped."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from l2gate.bench.bench import Bench
from l2gate.contract.judge import Verdict
from l2gate.foundation.errors import BenchError
from l2gate.foundation.events import FileSink
from l2gate.plugins.known import known_tests
from l2gate.plugins.machines import Machines
from l2gate.records.events import VerdictReached

ALONE = "TheFiveReasons.test_1_the_api_has_no_dr6_and_no_cr2"
ALONE_TOO = "RefusedWhateverL1Intercepts.test_every_exception_and_path"
WITH_L1 = "RefusedAlways.test_while_l2_is_active"
STOPS_L1 = "ThroughQemuItself.test_breakpoint_that_nobody_owns"


@dataclass
class Recorded:
    """A bench that notes what is asked of it."""

    from_template: bool = True
    contract: str = "refuse"
    has_another: bool = True
    asked: list[str] = field(default_factory=list)
    others: list[Recorded] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.write_text("facts")

    def another(self, folder: Path) -> Recorded | None:
        self.asked.append("another")
        self.others += [Recorded()] * self.has_another
        return self.others[-1] if self.has_another else None

    def renew(self) -> bool:
        self.asked.append("renew")
        return self.from_template

    def down(self) -> None:
        self.asked.append("down")


@pytest.fixture(autouse=True)
def _processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def made(folder: Path, bench: Recorded, *, beside: bool = True) -> Machines:
    tests = [ALONE, ALONE_TOO, WITH_L1, STOPS_L1]
    found = cast(Bench, bench)
    return Machines(found, folder, folder / "timeline.jsonl", tests, beside=beside)


def ended(folder: Path, test: str, verdict: Verdict) -> None:
    told: dict[str, Any] = {"level": "controller", "text": test, "reason": ""}
    FileSink(folder / "timeline.jsonl")(VerdictReached(test=test, verdict=verdict, **told))


def test_the_tests_are_what_they_are_taken_for() -> None:
    known = known_tests()
    assert not known[ALONE].needs_l1 and not known[ALONE_TOO].needs_l1
    assert known[WITH_L1].needs_l1 and not known[WITH_L1].test.spoils_l1_under
    assert known[STOPS_L1].test.spoils_l1_under == "refuse"


def test_what_needs_no_l1_goes_beside_and_the_second_machine_ends_with_its_last_test(
    tmp_path: Path,
) -> None:
    bench = Recorded()
    both = made(tmp_path, bench)
    assert both.count == 2
    assert both.turn(ALONE) is both.turn(ALONE_TOO) is not both.turn(WITH_L1)
    assert both.place(WITH_L1) == tmp_path / "bench.json" and bench.asked == []
    assert both.place(ALONE) == both.place(ALONE_TOO) == tmp_path / "beside.json"
    assert bench.asked == ["another"]
    both.ended(ALONE)
    both.ended(WITH_L1)
    assert bench.others[0].asked == []
    both.ended(ALONE_TOO)
    both.close()
    assert bench.others[0].asked == ["down"]


@pytest.mark.parametrize(
    ("from_template", "beside", "processors"),
    [(False, True, {0, 1}), (True, False, {0, 1}), (True, True, {3})],
)
def test_elsewhere_all_go_on_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    from_template: bool,
    beside: bool,
    processors: set[int],
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: processors)
    one = made(tmp_path, Recorded(from_template=from_template), beside=beside)
    assert one.count == 1 and one.turn(ALONE) is one.turn(WITH_L1)
    assert one.place(ALONE) == tmp_path / "bench.json"


def test_where_a_second_is_not_to_be_had_the_first_serves(tmp_path: Path) -> None:
    both = made(tmp_path, Recorded(has_another=False))
    assert both.place(ALONE) == tmp_path / "bench.json"


def test_where_a_second_is_not_to_be_had_all_take_turns_on_the_first(tmp_path: Path) -> None:
    bench = Recorded(has_another=False)
    both, begun = made(tmp_path, bench), list[str]()

    async def run(name: str) -> None:
        assert await both.begin(name) == tmp_path / "bench.json"
        begun.append(name)

    async def job() -> None:
        first, *others = [asyncio.create_task(run(name)) for name in (WITH_L1, ALONE, ALONE_TOO)]
        await asyncio.sleep(0)
        for name in (WITH_L1, ALONE, ALONE_TOO):
            for _ in range(10):
                await asyncio.sleep(0)
            assert begun[-1] == name
            both.ended(name)
        await asyncio.gather(first, *others)

    asyncio.run(job())
    assert begun == [WITH_L1, ALONE, ALONE_TOO] and bench.asked == ["another"]


def test_side_by_side_a_test_waits_for_its_own_machine_alone(tmp_path: Path) -> None:
    both = made(tmp_path, Recorded())

    async def job() -> None:
        assert await both.begin(WITH_L1) == tmp_path / "bench.json"
        assert await both.begin(ALONE) == tmp_path / "beside.json"
        waiting = asyncio.create_task(both.begin(ALONE_TOO))
        await asyncio.sleep(0)
        assert not waiting.done()
        both.ended(ALONE)
        assert await waiting == tmp_path / "beside.json"

    asyncio.run(job())


@pytest.mark.parametrize(
    ("verdict", "new"), [(Verdict.PASS, 1), (Verdict.FAIL, 1), (Verdict.SKIP, 0)]
)
def test_after_one_that_stops_l1_there_is_a_new_machine(
    tmp_path: Path, verdict: Verdict, new: int
) -> None:
    bench = Recorded()
    both = made(tmp_path, bench)
    both.place(STOPS_L1)
    ended(tmp_path, STOPS_L1, verdict)
    both.place(ALONE)
    assert "renew" not in bench.asked
    both.place(WITH_L1)
    both.place(WITH_L1)
    assert bench.asked.count("renew") == new


def test_under_another_contract_l1_is_left_well(tmp_path: Path) -> None:
    bench = Recorded(contract="payload")
    both = made(tmp_path, bench)
    both.place(STOPS_L1)
    ended(tmp_path, STOPS_L1, Verdict.PASS)
    both.place(WITH_L1)
    assert bench.asked == []


def test_what_fails_is_the_test_s_to_tell(tmp_path: Path) -> None:
    class Broken(Recorded):
        def renew(self) -> bool:
            raise BenchError("it does not boot")

    both = made(tmp_path, Broken())
    both.place(STOPS_L1)
    ended(tmp_path, STOPS_L1, Verdict.PASS)
    with pytest.raises(BenchError, match="does not boot"):
        both.place(WITH_L1)
