# SPDX-License-Identifier: MIT
"""Avocado's tags (`avocado run -t refuse,quick tests/`) say of each test what its code says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from l2gate.contract.table import load
from l2gate.foundation.settings import checkout
from l2gate.plugins.known import KnownTest, known_tests
from l2gate.testing import EITHER

ALL = ("quick", "needs-l1", "vmx", "svm", "refuse", "payload")
#: Of the five reasons these are about VMX's own fields: their tables have no case on SVM.
REASONS = {
    "test_3_page_fault_mask_and_match_are_ignored": "reason-3-pfec-ignored",
    "test_4_a_stale_vmexit_is_read_from_vmcs02": "reason-4-stale-vmexit",
    "test_5_a_stale_error_code_is_read_from_vmcs02": "reason-5-stale-error-code",
}


def listed(tag: str) -> set[str]:
    """The tests that Avocado finds by that tag."""
    command = [
        sys.executable,
        "-m",
        "avocado",
        "list",
        "-t",
        tag,
        str(checkout() / "tests/injection"),
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.rpartition(":")[2] for line in lines if ":" in line}


@pytest.mark.parametrize("tag", ALL)
def test_a_tag_finds_the_tests_that_are_so(tag: str) -> None:
    assert listed(tag) == {name for name, test in known_tests().items() if _is(tag, test)}


def test_what_a_test_says_of_itself_is_a_sentence() -> None:
    said = [test.says for test in known_tests().values()]
    assert any(said) and not any(":avocado:" in one for one in said)


def _is(tag: str, test: KnownTest) -> bool:
    if tag in ("refuse", "payload"):
        return test.contract in (EITHER, tag)
    if tag in ("quick", "needs-l1"):
        return test.needs_l1 == (tag == "needs-l1")
    table = REASONS.get(test.sentence.partition(".")[2])
    return table is None or any(case.where in ("any", tag) for case in load(table).cases)
