# SPDX-License-Identifier: MIT
"""The cases that `--case` chooses: those with its words, and their controls."""

from __future__ import annotations

import pytest
from l2gate.contract.choice import is_control, parse, telling, words_of_row, words_on_qemu
from l2gate.contract.table import CONTRACTS, Case, all_tables
from l2gate.foundation.errors import UsageError


def case(level: str, code: int | None = None, **words: int) -> dict[str, str]:
    """A case on QEMU's vCPU, as a result tells it."""
    told = {"vector": 13, "injected": True, "repeat": 1} | words
    return words_on_qemu(
        "vcpu-events", told["vector"], code, bool(told["injected"]), told["repeat"], level
    )


def rows() -> list[tuple[Case, list[Case]]]:
    """The first case of each row, and all cases of its table and contract."""
    found = []
    for table in all_tables():
        for contract in CONTRACTS:
            cases = list(table.under(contract))
            firsts = {one.line: one for one in reversed(cases)}
            found += [(first, cases) for first in firsts.values()]
    return found


def test_nothing_asked_is_everything() -> None:
    assert parse("").asks(case("L2")) and parse("").of([]) == []


def test_a_word_that_no_case_has_is_refused() -> None:
    for text in ("vektor=13", "vector", "vector="):
        with pytest.raises(UsageError, match="not a word of a case"):
            parse(text)


def test_numbers_are_the_same_however_they_are_written() -> None:
    assert parse("vector=0xd code=0").takes(case("L2", 0))
    assert not parse("code=none").takes(case("L2", 0))


def test_a_case_on_qemu_s_vcpu_brings_its_controls() -> None:
    choice = parse("vector=13 code=0x0 active=L2 repeat=1 injected=1")
    assert choice.asks(case("L2", 0))
    assert choice.asks(case("L1", 0))
    assert choice.asks(case("L2", injected=False))
    assert not choice.asks(case("L2"))
    assert not choice.asks(case("L1"))
    assert not choice.asks(case("L1", 0, vector=14))
    assert not choice.asks(case("L2", 0, repeat=100))


def test_each_row_of_each_table_can_be_asked_alone_with_its_controls() -> None:
    for first, cases in rows():
        text = telling(words_of_row(first), [words_of_row(one) for one in cases])
        choice = parse(text)
        found = choice.of(cases)
        assert [one for one in found if choice.takes(words_of_row(one))] == [first], text
        controls = [one for one in cases if one.active == "L1" and one.sent == first.sent]
        if first.active == "L2" and controls:
            assert any(one in found for one in controls), text
        assert len(found) <= 12, text


def test_a_control_is_of_the_same_vm() -> None:
    table = {"table": "refused", "vector": "13", "injected": "1", "active": "L1", "code": "0x0"}
    assert not is_control(table, case("L2", 0))
    assert is_control(table, table | {"active": "L2"})
