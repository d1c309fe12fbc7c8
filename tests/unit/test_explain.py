# SPDX-License-Identifier: MIT
"""The table of expected outcomes: the tables' own rows, chosen by what is known."""

from __future__ import annotations

import pytest
from l2gate.contract.eras import all_of
from l2gate.contract.explain import Expectation, Known, expected, legend
from l2gate.contract.table import parse

TABLE = parse(
    "t",
    """# A title.
#
# Proves: one thing, and
# another.
#
# Commits: none.

contract payload
let      SOME 1,3-4
given    cap=on
columns  name where era    vector path                  => who
a        any  any    $SOME vcpu-events,sync-regs handler
b        vmx  6.1+   14    vcpu-events           exit
contract refuse
columns  name vector => errno
c        13          EINVAL
""",
)


def rows(contract: str, known: Known, path: str = "all") -> list[str]:
    return [
        f"{table.table.name}:{row.cases[0].name}"
        for table in expected(contract, known, path)
        for row in table.rows
    ]


def test_a_table_tells_its_title_and_what_it_proves() -> None:
    one = Expectation(TABLE, TABLE.rows)
    assert (one.title, one.proves) == ("A title.", "one thing, and another.")
    assert one.cases == 6 + 1 + 1


def test_rows_are_printed_as_they_are_written_with_their_lists_put_in() -> None:
    lines = [" ".join(line.split()) for line in Expectation(TABLE, TABLE.rows).lines()]
    assert lines == [
        "given cap=on",
        "name where era vector path => who",
        "a any any 1,3-4 vcpu-events,sync-regs => handler",
        "b vmx 6.1+ 14 vcpu-events => exit",
        "name vector => errno",
        "c 13 => EINVAL",
    ]


def test_json_has_the_cells_by_name() -> None:
    row = Expectation(TABLE, TABLE.rows[1:2]).to_json()["rows"][0]
    assert row["asked"] == {"cap": "on", "vector": "14", "path": "vcpu-events"}
    assert (row["where"], row["era"], row["expected"]) == ("vmx", "6.1+", {"who": "exit"})


@pytest.mark.parametrize("contract", ["payload", "refuse"])
def test_only_rows_of_the_contract(contract: str) -> None:
    for table in expected(contract, Known()):
        assert {case.contract for row in table.rows for case in row.cases} == {contract}


def test_what_is_not_known_leaves_a_row_in() -> None:
    assert "page-faults:intercepted" in rows("payload", Known())
    assert "page-faults:intercepted" not in rows("payload", Known("vmx"))
    assert "page-faults:intercepted" in rows("payload", Known("svm"))
    assert "exceptions:pending-soft" in rows("payload", Known("svm"))
    assert "exceptions:pending-soft" not in rows("payload", Known("svm", soft_exceptions=False))
    assert "triple-fault:triple-fault" not in rows("payload", Known(steps=all_of(False)))


def test_a_path_leaves_only_its_own_cases() -> None:
    tables = expected("refuse", Known(), "sync-regs")
    cases = [case for table in tables for row in table.rows for case in row.cases]
    assert cases and {case.path for case in cases} == {"sync-regs"}


def test_the_legend_explains_both_sides() -> None:
    assert all(word in legend() for word in ("where", "errno", "right~known"))
