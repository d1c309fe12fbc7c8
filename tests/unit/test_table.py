# SPDX-License-Identifier: MIT
"""Case tables: what they mean, and that a broken one is told by file and line."""

from __future__ import annotations

import pytest
from l2gate.contract.eras import all_of
from l2gate.contract.table import FOLDER, Case, Platform, load, parse
from l2gate.foundation.errors import CaseTableError

NEW, OLD = all_of(True), all_of(False)
VMX, SVM = Platform("vmx", True, NEW), Platform("svm", False, NEW)

TABLE = """
contract payload
let      SOME 1,3-4
given    cap=on flag=1
columns  name vector intercept => errno who
a        $SOME  no,yes   none  handler   # a comment
b        14     -        -     nobody~exit
"""


def row(text: str, columns: str = "columns name vector => who") -> Case:
    (case,) = parse("t", f"contract payload\n{columns}\n{text}\n").cases
    return case


def test_a_row_is_the_cross_of_its_lists() -> None:
    cases = [case for case in parse("t", TABLE).cases if case.name == "a"]
    asked = [(case.vector, case.words["intercept"]) for case in cases]
    assert asked == [(v, i) for v in (1, 3, 4) for i in ("no", "yes")]
    assert cases[0].request == "cap=on flag=1 vector=1 intercept=no"
    assert {case.line for case in cases} == {6}


def test_a_dash_leaves_the_word_to_its_default_and_the_outcome_unjudged() -> None:
    case = parse("t", TABLE).cases[-1]
    assert "intercept" not in case.words and "errno" not in case.expected
    assert (case.expected["who"].right, case.expected["who"].known) == ("nobody", "exit")


def test_what_is_sent_is_the_same_whoever_is_active() -> None:
    columns = "columns name vector active intercept pfec_mask => who"
    in_l1 = row("c 14 L1 no 0x0 handler", columns)
    in_l2 = row("c 14 L2 yes 0x1 exit", columns)
    assert in_l1.sent == in_l2.sent == "vector=14"
    assert (in_l1.active, in_l2.active) == ("L1", "L2")


@pytest.mark.parametrize(
    ("kind", "vector", "code"),
    [("arch", 13, 0x18), ("arch", 6, None), ("wrong", 13, None), ("wrong", 6, 0x18)],
)
def test_error_codes_by_vector(kind: str, vector: int, code: int | None) -> None:
    assert row(f"c {vector} {kind} -", "columns name vector code => who").code == code


def test_conditions_choose_the_rows() -> None:
    old = Platform("vmx", True, OLD)
    for cell, grounds in (
        ("any", [VMX, SVM, old]),
        ("vmx", [VMX, old]),
        ("svm", [SVM]),
        ("soft", [VMX, old]),
    ):
        case = row(f"c {cell} 3 -", "columns name where vector => who")
        assert [g for g in (VMX, SVM, old) if case.holds(g)] == grounds
    case = row("c sync-regs 3 -", "columns name path vector => who")
    assert case.holds(VMX) and not case.holds(Platform("vmx", True, NEW, sync_events=False))
    moved = row("c before 3 -", "columns name moved vector => who")
    assert moved.holds(VMX) and not moved.holds(Platform("vmx", True, NEW, nested_state=False))
    assert not row("c 6.1+ 3 -", "columns name era vector => who").holds(old)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a 1 nobody more", "4 cells, but 3 columns"),
        ("a 1 nobdy", "who cannot be nobdy"),
        ("a 1 nobody~", "who cannot be empty"),
        ("a 1-x nobody", "1-x is no range of vectors"),
        ("a $NONE nobody", "there is no list $NONE"),
        ("columns name vectr => who", "no case has a word vectr"),
        ("columns name vector => whom", "nothing is expected of whom"),
        ("columns name vector who", "columns name ... => ..."),
        ("given cap", "given takes WORD=VALUE, not cap"),
        ("contract both", "contract is payload, refuse or none"),
        ("let ONLY", "let NAME LIST"),
    ],
)
def test_a_broken_row_is_told_by_file_and_line(line: str, words: str) -> None:
    with pytest.raises(CaseTableError) as caught:
        parse("t", f"contract payload\ncolumns name vector => who\n{line}\n", "cases/t.txt")
    assert f"cases/t.txt:3: {words}" in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_table_may_speak_of_both_contracts() -> None:
    columns = "columns name vector => who"
    text = f"contract refuse\n{columns}\na 1 nobody\ncontract payload\n{columns}\nb 1 exit\n"
    table = parse("t", text)
    assert [[case.name for case in table.under(c)] for c in ("refuse", "payload")] == [["a"], ["b"]]


def test_a_contract_begins_anew() -> None:
    text = "contract refuse\ngiven cap=on\ncolumns name vector => who\ncontract payload\na 1 exit\n"
    with pytest.raises(CaseTableError, match="t:5: a row before any columns"):
        parse("t", text)


def test_a_row_keeps_its_cells_with_the_lists_put_in() -> None:
    row_ = parse("t", TABLE).rows[0]
    assert (row_.given, row_.cells) == (
        ("cap=on", "flag=1"),
        ("a", "1,3-4", "no,yes", "none", "handler"),
    )
    assert len(row_.cases) == 6


def test_a_table_that_does_not_exist() -> None:
    with pytest.raises(CaseTableError):
        load("there-is-none")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_our_own_tables_can_be_read_and_document_themselves(path: object) -> None:
    name = str(path).rpartition("/")[2].removesuffix(".txt")
    table, text = load(name), (FOLDER / f"{name}.txt").read_text()
    assert table.cases
    assert all(word in text for word in ("# Proves: ", "# Commits: ", "# Files: "))
    for platform in (VMX, SVM):
        assert _without_control([case for case in table.cases if case.holds(platform)]) == []


def _without_control(cases: list[Case]) -> list[str]:
    """The cases with L2 active whose struct no case of their table sends with L1 active."""
    in_l1 = {case.sent for case in cases if case.active == "L1"}
    errnos = {case.request: case.expected.get("errno") for case in cases}
    refused = {r for r, errno in errnos.items() if errno and errno.right != "none"}
    return [
        f"{case.line}: {case.request}"
        for case in cases
        if case.active == "L2" and case.request not in refused and case.sent not in in_l1
    ]
