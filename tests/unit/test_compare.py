# SPDX-License-Identifier: MIT
"""The differential: what is known to differ is told from what is a finding."""

from __future__ import annotations

from l2gate.jobs.compare import NOT_RUN, rows
from l2gate.records.descriptions import Delivery
from l2gate.report.result import Result
from making import result as made
from making import tabled as tabled_case
from making import vcpu


def result(errno: str | None, vector: int = 13, delivered: str | None = None) -> Result:
    one = Delivery(test="T.test", vector=3, wanted="SIGTRAP", seen=delivered)
    return made("pass", vcpu(errno=errno, vector=vector), deliveries=[one])


def test_the_same_outcome_agrees() -> None:
    assert all(row.judgement == "agree" for row in rows([result("EINVAL"), result("EINVAL")]))


def test_another_errno_is_a_finding() -> None:
    case = rows([result("EINVAL"), result(None)])[0]
    assert case.outcomes == ("EINVAL", "accepted")
    assert case.judgement.startswith("FINDING")


def test_what_is_known_of_svm_is_explained() -> None:
    told = rows([result("EINVAL", delivered="SIGTRAP"), result("EINVAL")])[-1]
    assert told.judgement.startswith("differ, as known")


def test_a_case_that_one_host_did_not_run_is_a_finding() -> None:
    table = rows([result("EINVAL", vector=13), result("EINVAL", vector=14)])
    assert NOT_RUN in table[0].outcomes
    assert table[0].judgement.startswith("FINDING")


def tabled(who: str, vector: int = 13, line: int = 7) -> Result:
    return made("pass", tabled_case(who=who, vector=vector, line=line))


def test_a_case_of_a_table_is_compared_by_who_got_it() -> None:
    assert rows([tabled("L1-exit"), tabled("L1-exit")])[0].judgement == "agree"
    assert rows([tabled("L1-exit"), tabled("nobody")])[0].judgement.startswith("FINDING")
    assert rows([tabled("nobody", 3), tabled("L2-handler", 3)])[0].judgement.startswith("differ")


def test_a_row_about_one_vendor_is_not_compared() -> None:
    assert rows([tabled("L1-exit", line=7), tabled("nobody", line=8)]) == []
