# SPDX-License-Identifier: MIT
"""The order of a job's tests: without L1 first, those that may leave L1 stopped for good last."""

from __future__ import annotations

from dataclasses import dataclass

from l2gate.plugins.known import KnownTest, in_order, known_tests


@dataclass(frozen=True)
class Asked:
    uri: str


def ordered(names: list[str]) -> list[str]:
    asked = [Asked(f"tests/injection/some.py:{name}") for name in names]
    return [one.uri.rpartition(":")[2] for one in in_order(asked)]


def spoils(test: KnownTest) -> bool:
    return bool(test.test.spoils_l1_under)


def test_what_needs_no_l1_comes_first_and_what_stops_it_last() -> None:
    tests = known_tests().values()
    alone = [test.sentence for test in tests if not test.needs_l1]
    last = [test.sentence for test in tests if spoils(test)]
    others = [test.sentence for test in tests if test.needs_l1 and not spoils(test)]
    assert alone and others and last
    assert ordered(last + others + alone) == alone + others + last


def test_it_is_so_for_some_of_them_and_for_tests_of_somebody_else() -> None:
    stops = "ThroughQemuItself.test_breakpoint_that_nobody_owns"
    spares = "ThroughQemuItself.test_machine_check_while_l1_is_active"
    assert ordered([stops, "Other.test_this", spares]) == ["Other.test_this", spares, stops]
