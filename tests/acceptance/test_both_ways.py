# SPDX-License-Identifier: MIT
"""A claim about the kernel is proven both ways: the kernel that keeps the promise passes, each
kernel that breaks it fails, for the reason named. Each test is one `l2gate run`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from asking import (
    ACCEPTED,
    AMD,
    CONTROL,
    EVERY,
    HUNDREDTH,
    INTEL,
    REFUSED,
    ZERO,
    Run,
    l2gate,
    l2gate_says,
)

#: The slow one first: the tests run side by side.
HOSTS = (INTEL, AMD)
MUTANTS = "debian:6.12+unpatched+images/kernels/6.12/mutants"


#: The pair that differs by the commit alone, on each host. What the suite itself must notice has
#: nothing to do with the host, so the rest is asked where it is answered soonest.
on_each_host = pytest.mark.parametrize("host", HOSTS)


@on_each_host
def test_patched_is_green(host: str, tmp_path: Path) -> None:
    run = l2gate(host, "debian:6.12+patched", tmp_path)
    assert (run.code, run.result["verdict"]) == (0, "pass")
    assert run.result["contract"]["name"] == "refuse"
    assert (run.result["host"]["spec"], run.result["host"]["nested"] in ("Y", "1")) == (host, True)
    assert all(case["verdict"] == "pass" for case in run.result["cases"])
    proven = [c for c in run.result["cases"] if c["test"] == EVERY]
    assert {c["vector"] for c in proven} == set(range(32)) - {2}
    for case in proven:
        proof = case["proof"]
        assert (case["seen_errno"], case["active_level"]) == ("EINVAL", "L2")
        assert ("VMX" if host == "emulated-intel" else "SVM") in proof["how"]
        assert proof["guest_mode"] and proof["unchanged"] and proof["cr3"] == "0xd15000"
        assert proof["liveness"]["l1"] and proof["liveness"]["l2"]


def test_patched_is_green_with_a_linux_l2(tmp_path: Path) -> None:
    asked = ("--l2", "linux", f"{ACCEPTED}:{CONTROL}", f"{REFUSED}:{EVERY}", f"{REFUSED}:{ZERO}")
    run = l2gate(INTEL, "debian:6.12+patched", tmp_path, *asked)
    assert (run.code, run.result["verdict"]) == (0, "pass")


@on_each_host
def test_unpatched_is_caught(host: str, tmp_path: Path) -> None:
    run = l2gate(host, "debian:6.12+unpatched", tmp_path)
    assert (run.code, run.result["verdict"]) == (1, "fail")
    caught = run.failing(EVERY)
    assert {c["vector"] for c in caught} == set(range(32)) - {2}
    for case in caught:
        assert (case["seen_errno"], case["expected_errno"]) == (None, "EINVAL")
        assert "errno seen none (accepted), errno wanted EINVAL" in case["reason"]
    assert not run.failing(CONTROL)


def test_a_wrong_errno_is_caught(tmp_path: Path) -> None:
    run = l2gate(AMD, f"{MUTANTS}/wrong-errno.patch", tmp_path, REFUSED)
    assert (run.code, run.result["verdict"]) == (1, "fail")
    assert {c["seen_errno"] for c in run.failing(EVERY)} == {"EBUSY"}


def test_refusing_l1_too_is_caught(tmp_path: Path) -> None:
    run = l2gate(AMD, f"{MUTANTS}/refuses-l1-too.patch", tmp_path)
    assert (run.code, run.result["verdict"]) == (1, "fail")
    assert {c["seen_errno"] for c in run.failing(CONTROL)} == {"EINVAL"}
    assert not run.failing(EVERY)


def test_a_refusal_that_changes_state_is_caught(tmp_path: Path) -> None:
    run = l2gate(AMD, f"{MUTANTS}/changes-state-first.patch", tmp_path, REFUSED)
    assert (run.code, run.result["verdict"]) == (1, "fail")
    assert any("refused, yet it changed events" in c["reason"] for c in run.failing(EVERY))


def test_a_refusal_now_and_then_is_caught(tmp_path: Path) -> None:
    run = l2gate(AMD, f"{MUTANTS}/flaky.patch", tmp_path, REFUSED)
    assert (run.code, run.result["verdict"]) == (1, "fail")
    assert any("not the same each time" in c["reason"] for c in run.failing(HUNDREDTH))


PAYLOAD = "tests/injection/payload_contract.py"
TABLED = "tests/injection/refused_whatever_l1_intercepts.py"
STOCK_MUTANTS = "debian:6.12+images/kernels/6.12/mutants"


@on_each_host
def test_stock_keeps_the_payload_contract(host: str, tmp_path: Path) -> None:
    run = l2gate(host, "debian:6.12", tmp_path)
    assert (run.code, run.result["verdict"]) == (0, "pass")
    assert run.result["contract"]["name"] == "payload"
    cases = run.result["cases"]
    assert {c["who"] for c in cases if c["active_level"] == "L2"} >= {
        "L2-handler",
        "L1-exit",
        "nobody",
    }
    assert all(c["proof"]["guest_mode"] == (c["active_level"] == "L2") for c in cases)


@on_each_host
def test_the_refusal_table_knows_the_pair_apart(host: str, tmp_path: Path) -> None:
    patched = l2gate(host, "debian:6.12+patched", tmp_path, TABLED)
    assert (patched.code, patched.result["verdict"]) == (0, "pass")
    unpatched = l2gate(host, "debian:6.12+unpatched", tmp_path, TABLED)
    assert (unpatched.code, unpatched.result["verdict"]) == (1, "fail")
    failing = [c for c in unpatched.result["cases"] if c["verdict"] == "fail"]
    refused = {
        "refused",
        "refused-with-a-code",
        "refused-in-user-mode",
        "refused-without-flags",
        "refused-after-a-migration",
        "refused-while-debugged",
        "refused-with-all-the-rest",
        "refused-and-nothing-lost",
        "refused-and-nmi-not-lost",
    }
    assert {c["case"] for c in failing} == refused
    assert {c["path"] for c in failing} == {"vcpu-events", "sync-regs"}


@pytest.mark.parametrize(
    ("mutant", "host", "table", "words"),
    [
        ("payload-too-early", AMD, "page-faults", "cr2 seen 0x1234000"),
        ("payload-in-the-wrong-register", AMD, "page-faults", "cr2 seen 0xc2c2c000"),
        ("intercept-ignored", AMD, "exceptions", "who seen handler, who wanted exit"),
        ("injected-is-intercepted", AMD, "exceptions", "who seen exit, who wanted handler"),
        ("error-code-lost", AMD, "exceptions", "code seen 0x0, code wanted 0x18"),
        ("payload-flag-without-cap", AMD, "errnos", "errno seen none, errno wanted EINVAL"),
        ("pfec-ignored", INTEL, "page-faults", "who seen handler, who wanted exit"),
        ("gd-too-early", INTEL, "debug-exceptions", "gd seen clear, gd wanted set"),
    ],
)
def test_a_broken_payload_is_caught(
    mutant: str, host: str, table: str, words: str, tmp_path: Path
) -> None:
    run = l2gate(host, f"{STOCK_MUTANTS}/{mutant}.patch", tmp_path, PAYLOAD)
    assert (run.code, run.result["verdict"]) == (1, "fail")
    reasons = [c["reason"] for c in run.result["cases"] if c["verdict"] == "fail"
               and c["table"] == table]  # fmt: skip
    assert any(words in reason for reason in reasons)


REASONS = "tests/injection/the_five_reasons.py"
REASON = {
    1: "TheFiveReasons.test_1_the_api_has_no_dr6_and_no_cr2",
    2: "TheFiveReasons.test_2_dr7_gd_is_cleared_too_early",
    3: "TheFiveReasons.test_3_page_fault_mask_and_match_are_ignored",
    4: "TheFiveReasons.test_4_a_stale_vmexit_is_read_from_vmcs02",
    5: "TheFiveReasons.test_5_a_stale_error_code_is_read_from_vmcs02",
}


def verdicts(run: Run) -> dict[str, str]:
    return {test["name"]: test["verdict"] for test in run.result["tests"]}


@pytest.mark.parametrize("kernel", ["debian:6.12", "debian:6.12+patched"])
@on_each_host
def test_the_five_reasons_are_no_more(host: str, kernel: str, tmp_path: Path) -> None:
    run = l2gate(host, kernel, tmp_path, REASONS)
    assert (run.code, run.result["verdict"]) == (0, "pass")
    of_vmx = "pass" if host == INTEL else "skip"
    assert verdicts(run) == {name: "pass" if n < 3 else of_vmx for n, name in REASON.items()}


@on_each_host
def test_before_the_commit_each_reason_shows(host: str, tmp_path: Path) -> None:
    run = l2gate(host, f"{MUTANTS}/before-the-commit.patch", tmp_path, REASONS)
    shown = {
        1: ("cr2 seen 0x1234000", "dr6 seen 0xffff4ff0"),
        2: ("gd seen clear, gd wanted set",),
        3: ("who seen exit, who wanted nobody", "who seen handler, who wanted nobody"),
        4: ("qual seen 0xe10040, qual wanted none",),
        5: ("code seen 0x2, code wanted none",),
    }
    for number, words in shown.items():
        if number < 3 or host == INTEL:
            reasons = [case["reason"] for case in run.failing(REASON[number])]
            assert all(any(word in reason for reason in reasons) for word in words)


@pytest.mark.parametrize(
    ("mutant", "host", "numbers", "words"),
    [
        ("payload-too-early", AMD, [1], "cr2 seen 0x1234000"),
        ("gd-too-early", INTEL, [2], "gd seen clear, gd wanted set"),
        ("pfec-ignored", INTEL, [3], "who seen handler, who wanted exit"),
        # L1 gets a #PF's address and a #DB's cause in the exit qualification: that is reason 1.
        ("stale-qualification", INTEL, [4, 1], "qual seen 0xe10040"),
        ("stale-error-code", INTEL, [5], "code seen 0x2"),
    ],
)
def test_a_reason_that_comes_back_is_caught(
    mutant: str, host: str, numbers: list[int], words: str, tmp_path: Path
) -> None:
    run = l2gate(host, f"{STOCK_MUTANTS}/{mutant}.patch", tmp_path, REASONS)
    assert (run.code, run.result["verdict"]) == (1, "fail")
    assert any(words in case["reason"] for case in run.failing(REASON[numbers[0]]))
    red = [n for n, name in REASON.items() if verdicts(run)[name] == "fail"]
    assert red == sorted(numbers)


@pytest.mark.parametrize(
    ("kernel", "path", "code"),
    [
        ("debian:6.12+patched", "sync-regs", 0),
        ("debian:6.12+unpatched", "sync-regs", 1),
        ("debian:6.12+patched", "guest-debug", 0),
        ("debian:6.12+unpatched", "guest-debug", 0),  # the commit does not cover it
        ("debian:6.12", "nmi", 0),
    ],
)
def test_a_job_by_one_path_is_judged_by_it(
    kernel: str, path: str, code: int, tmp_path: Path
) -> None:
    run = l2gate(AMD, kernel, tmp_path, "--path", path)
    assert run.code == code
    assert {case["path"] for case in run.result["cases"]} == {path}
    assert {entry["name"] for entry in run.result["paths"] if entry["chosen"]} == {path}


@pytest.mark.parametrize("kernel", ["debian:6.12", "debian:6.12+patched", "debian:6.12+unpatched"])
def test_the_source_tells_what_the_kernel_says(kernel: str) -> None:
    asked = ("contract", "--json", "--host", AMD, "--kernel", kernel)
    read, booted = (json.loads(l2gate_says(*asked, *more).stdout) for more in ((), ("--boot",)))
    assert (read["booted"], booted["booted"]) == ("nothing", "L0, without L1")
    assert read["capability"] == booted["capability"]
    assert read["contract"] == booted["contract"]
    assert bool(read["check"]) == bool(booted["check"]) == kernel.endswith("+patched")


def test_stock_is_an_honest_skip(tmp_path: Path) -> None:
    run = l2gate(AMD, "debian:6.12", tmp_path, REFUSED)
    assert (run.code, run.result["verdict"]) == (3, "skip")
    assert "payload" in run.result["reason"]


def test_stock_is_red_when_a_refusal_is_expected(tmp_path: Path) -> None:
    run = l2gate(AMD, "debian:6.12", tmp_path, "--expect", "refuse", REFUSED)
    assert (run.code, run.result["verdict"]) == (1, "fail")


def test_a_refusal_without_its_controls_is_inconclusive(tmp_path: Path) -> None:
    run = l2gate(AMD, "debian:6.12+patched", tmp_path, f"{REFUSED}:{HUNDREDTH}")
    assert (run.code, run.result["verdict"]) == (3, "inconclusive")
    assert "lack their control" in run.result["reason"]
