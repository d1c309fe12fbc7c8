"""A claim about the kernel is proven both ways: the kernel that keeps the promise passes, each
kernel that breaks it fails, for the reason named. Each test is one `l2gate run`."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import ACCEPTED, AMD, CONTROL, EVERY, HUNDREDTH, INTEL, REFUSED, ZERO, l2gate

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
    assert {c["case"] for c in failing} == {"refused", "refused-with-a-code"}
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
