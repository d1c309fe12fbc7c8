# SPDX-License-Identifier: MIT
"""The result of a job, put together from its timeline and from what Avocado says of its tests.

The JSON that `l2gate run --json FILE` writes is `Result` as it stands here, schema_version 2.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from l2gate.contract import paths
from l2gate.contract.judge import Verdict
from l2gate.foundation.errors import UsageError
from l2gate.foundation.events import Event
from l2gate.injection.vectors import EXCEPTIONS
from l2gate.report.provenance import Provenance

SCHEMA_VERSION = 2

_Case = dict[str, Any]

#: Exit codes of `l2gate run`; 4 is a usage error.
EXIT_CODES = {
    Verdict.PASS: 0,
    Verdict.FAIL: 1,
    Verdict.INFRA_ERROR: 2,
    Verdict.INCONCLUSIVE: 3,
    Verdict.SKIP: 3,
}
USAGE_EXIT_CODE = UsageError.exit_code


@dataclass(frozen=True)
class TestResult:
    """One system test: its sentence, its verdict and why; where it is, seen from the checkout, and
    what it says of itself (both may be empty)."""

    name: str
    verdict: str
    reason: str
    place: str = ""
    says: str = ""


@dataclass(frozen=True)
class Result:
    """What a job found out.

    - ``verdict``, ``reason``: the whole; a Verdict's value, and the sentence that gives it.
    - ``host``: spec, emulator (empty: a machine that was there), cpu_vendor, cpu_model, microcode,
      hypervisor and machine (null: none known), virtualization (VMX or SVM), kvm_module, nested,
      parameters (of that module), kvm_parameters, and of L0's kernel release, version (its build),
      cmdline, tainted.
    - ``kernel``: spec, release, description.
    - ``contract``: name (refuse or payload), why it holds, the commit that decides it.
    - ``seconds``: wall seconds per phase (prepare, host, l1, connect, l2, tests, injection, cases,
      case, teardown, total); phases that come once per test are summed, injection is the median of
      one injection with its proof, case is the mean of a table's cases: their batches' wall time
      divided by their number.
    - ``tests``: each test's name, verdict, reason, place (seen from the checkout) and what it says
      of itself.
    - ``cases``: one entry per injection: test, path, vector, error_code (null: none), injected,
      repeat, active_level, expected_errno and seen_errno (null: accepted), verdict, reason,
      seconds, and proof: guest_mode, how (L2 was shown to be active), cr3, rip, fingerprint (R15),
      unchanged, changed, events_before, events_after, outcomes, liveness (l1, l2, l2_heartbeat,
      hits). A case of a table (l2gate/contract/table.py) has also table, line, case (its name),
      asked (the helper's words), sent (those that went to KVM), expected (by column), who (got
      it), deviations (known ones that were seen), finding (what neither is known nor was promised
      by the kernel's era; empty if nothing), and in its proof returned (what
      KVM_GET_VCPU_EVENTS said), exit (L1's record of its VM-exit) and earlier (of the one before)
      instead of fingerprint, events_before, events_after, outcomes and l2_heartbeat.
    - ``unasked``: cases that were not asked: test, table, cases (how many), and what the kernel or
      the CPU lacks for them.
    - ``paths``: one entry per way of injecting (contract/paths.py): name, how, covered (by the
      commit's check), chosen (by --path), cases (how many it had), l2_active, passing.
    - ``deliveries``: what became of an exception accepted while L1 was active: test, vector, wanted
      and seen signal (null: none).
    - ``logs``: the folder with consoles, timeline and test logs.
    - ``settings``: those that were asked for. ``asked``: the tests as they were named (empty: all).
    - ``error``: cause and hint of what broke the job (null: nothing did). ``complaints``: what L0's
      kernel has said of a fault of its own.
    - ``provenance`` (report/provenance.py): started (ISO 8601, UTC), seconds, l2gate (number,
      commit, changed), suite (SHA-256 of its files), controller (distribution, kernel, cpu, cpus,
      python), emulator, l1_qemu, image and patches (file and SHA-256 of each).

    Version 2 has added place and says of a test, asked, error, complaints and provenance, and of a
    kernel image and patches; host's emulator is in the emulator's own words.
    """

    verdict: str
    reason: str
    host: dict[str, Any]
    kernel: dict[str, Any]
    contract: dict[str, Any]
    seconds: dict[str, float]
    tests: list[TestResult]
    cases: list[dict[str, Any]]
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    paths: list[dict[str, Any]] = field(default_factory=list)
    unasked: list[dict[str, Any]] = field(default_factory=list)
    hint: str = ""
    logs: str = ""
    schema_version: int = SCHEMA_VERSION
    settings: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    error: dict[str, str] | None = None
    complaints: list[str] = field(default_factory=list)
    provenance: Provenance | None = None

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(asdict(self), indent=1) + "\n")
        draft.replace(path)


#: Stands between a test's failing cases and what broke it off after them.
THEN = "; then: "
#: Of the failed tests that many are named in the verdict.
_NAMED = 3
_RUN_ALL = "run all of tests/injection"


def assemble(
    events: list[Event],
    avocado: dict[str, Any] | None,
    settings: dict[str, Any],
    total_seconds: float,
    logs: str,
    asked: Sequence[str] = (),
    began: Provenance | None = None,
) -> Result:
    """The result of a job. ``asked`` are the tests as they were named, ``began`` is what was known
    of its provenance when it began.

    ``avocado`` is its results.json, None if it never came to that: a job that died half-way is
    an infra-error, whatever its tests had said until then (a failing case stays a failure).
    """
    tests = _tests(events, avocado)
    cases = [event.data for event in events if event.kind == "case"]
    verdict, reason, hint = _overall(events, avocado, tests, cases)
    seconds = _seconds(events)
    seconds["total"] = round(total_seconds, 3)
    host, kernel, error = fact(events, "host"), fact(events, "kernel"), _error(events)
    l1_qemu = str(fact(events, "l1-qemu").get("version", ""))
    return Result(
        verdict=verdict.value,
        reason=reason,
        hint=hint,
        host=host,
        kernel=kernel,
        contract=fact(events, "contract"),
        seconds=seconds,
        tests=tests,
        cases=cases,
        deliveries=[event.data for event in events if event.kind == "delivery"],
        paths=paths.report(cases, _path(events)),
        unasked=[event.data for event in events if event.kind == "unasked"],
        logs=logs,
        settings=settings,
        asked=list(asked),
        error={name: str(error.get(name, "")) for name in ("cause", "hint")} if error else None,
        complaints=[
            event.data.get("said", event.text) for event in events if event.kind == "complaint"
        ],
        provenance=began and began.of_job(total_seconds, host, kernel, l1_qemu),
    )


def exit_code(result: Result, events: list[Event]) -> int:
    """What `l2gate run` ends with."""
    error = _error(events)
    if error and error.get("exit_code") == USAGE_EXIT_CODE:
        return USAGE_EXIT_CODE
    return EXIT_CODES[Verdict(result.verdict)]


def nothing_proven(events: list[Event]) -> bool:
    """Whether nothing was proven with L2 active: such a job is not green."""
    cases = [event.data for event in events if event.kind == "case"]
    if cases and _case(events):
        return False  # whoever asks for one case knows that it may prove nothing of L2
    return not _counted(events, cases)[1]


def _path(events: list[Event]) -> str:
    """The way of injecting that was asked for."""
    return str(fact(events, "job").get("path", paths.ALL))


def _limits(events: list[Event]) -> str:
    """How the job was limited, for its verdict; empty if it was not."""
    case, path = _case(events), _path(events)
    limits = [] if path == paths.ALL else [f"by {path}"]
    return " ".join([*limits, *([f"with {case}"] if case else [])])


def _case(events: list[Event]) -> str:
    """The words of the cases that were asked for; empty: all."""
    return str(fact(events, "job").get("case") or "")


def _counted(events: list[Event], cases: list[_Case]) -> tuple[list[_Case], list[_Case]]:
    """The cases that a green job rests on, and those of them that have their controls.

    Under the refuse contract these are the refusals. A job limited to a path that the commit's
    check does not cover has none: there it is that the exceptions go to whom they must.
    """
    if _is_payload(events):
        return _accepted(cases), _proven_accepted(cases)
    free = [c for c in cases if not paths.covered(c)] if _limits(events) else []
    return _refusals(cases) + _accepted(free), _proven(cases) + _proven_accepted(free)


def _is_payload(events: list[Event]) -> bool:
    return bool(fact(events, "contract").get("name") == "payload")


def _accepted(cases: list[_Case]) -> list[_Case]:
    """The passing cases with L2 active in which KVM took what userspace sent."""
    return [
        case
        for case in cases
        if case["active_level"] == "L2"
        and case["seen_errno"] is None
        and case["verdict"] == Verdict.PASS
        and ("table" in case or case["injected"])
    ]


def _proven_accepted(cases: list[_Case]) -> list[_Case]:
    """Those that have their control: the same, sent while L1 is active, was right too. Without it
    a case would say nothing about L2."""
    in_l1 = {
        _sent(case)
        for case in cases
        if case["active_level"] == "L1" and case["verdict"] == Verdict.PASS
    }
    return [case for case in _accepted(cases) if _sent(case) in in_l1]


def _sent(case: _Case) -> tuple[object, ...]:
    """What userspace sent, and on whose VM."""
    if "table" in case:
        return paths.HELPER, case["sent"]
    return paths.QEMU, paths.path_of(case), case["vector"], case["error_code"], case["injected"]


def _refusals(cases: list[_Case]) -> list[_Case]:
    """The passing refusals of exceptions while L2 is active: what the commit is about.

    What is no exception (vector 2, beyond 31) is refused whoever is active and proves nothing.
    """
    return [
        case
        for case in cases
        if case["active_level"] == "L2"
        and case["vector"] in EXCEPTIONS
        and case["expected_errno"] is not None
        and case["verdict"] == Verdict.PASS
    ]


def _proven(cases: list[_Case]) -> list[_Case]:
    """Those that have both controls: the same struct accepted while L1 is active, and injected=0
    accepted while L2 is active, where userspace writes the struct itself. Without them a refusal
    would say nothing about L2."""
    accepted = [c for c in cases if c["expected_errno"] is None and c["verdict"] == Verdict.PASS]
    in_l1 = {
        (*_way(c), c["vector"], c["error_code"])
        for c in accepted
        if c["active_level"] == "L1" and c["injected"]
    }
    without = {
        (*_way(c), c["vector"]) for c in accepted if c["active_level"] == "L2" and not c["injected"]
    }
    return [
        case
        for case in _refusals(cases)
        if (*_way(case), case["vector"], case["error_code"]) in in_l1
        and ((*_way(case), case["vector"]) in without or paths.path_of(case) not in _OWN_STRUCT)
    ]


#: Where userspace can leave `injected` out; QEMU never does.
_OWN_STRUCT = ("vcpu-events", "sync-regs")


def _way(case: _Case) -> tuple[str, str]:
    """On whose VM and how: a control on another one would not be the same struct on that vCPU."""
    return paths.vm_of(case), paths.path_of(case)


def _overall(
    events: list[Event],
    avocado: dict[str, Any] | None,
    tests: list[TestResult],
    cases: list[_Case],
) -> tuple[Verdict, str, str]:
    """The worst of what was seen: (verdict, reason, hint)."""
    failed = [test for test in tests if test.verdict == Verdict.FAIL]
    complaints = [event.text for event in events if event.kind == "complaint"]
    broken = [case for case in cases if case["verdict"] == Verdict.FAIL]
    if failed or broken:
        names = _first(test.name for test in failed) or broken[0]["test"]
        reason = f"{len(broken)} of {len(cases)} cases break the contract ({names})"
        return Verdict.FAIL, reason + _beside(events, cases), ""
    if complaints:
        return Verdict.FAIL, complaints[0], "the whole of it is in the job's L0 console"
    if error := _error(events):
        return Verdict.INFRA_ERROR, str(error["cause"]), str(error.get("hint", ""))
    if avocado is None:
        return Verdict.INFRA_ERROR, "the job did not come to its end", "see the job's log"
    for worst in (Verdict.INFRA_ERROR, Verdict.INCONCLUSIVE):
        for test in tests:
            if test.verdict == worst:
                return worst, f"{test.name}: {test.reason}", ""
    if tests and all(test.verdict == Verdict.SKIP for test in tests):
        limits = _limits(events)
        by = f"no test was asked {limits}: " if limits else ""
        return Verdict.SKIP, f"{by}{tests[0].reason}", ""
    return _proof(events, cases)


def _first(names: Iterable[str]) -> str:
    """Some of them, and how many more there are."""
    some = list(names)
    more = f" and {len(some) - _NAMED} more tests" if len(some) > _NAMED else ""
    return ", ".join(some[:_NAMED]) + more


@dataclass(frozen=True)
class _Words:
    """How a contract's proofs are spoken of."""

    none: str
    ones: str
    control: str
    proven: str


_WORDS = {
    "refuse": _Words(
        "no refusal was proven while L2 was active",
        "refusals",
        "the same struct accepted while L1 is active, and injected=0 accepted while L2 is active",
        "proven refusals while L2 was active",
    ),
    "payload": _Words(
        "no case of the payload contract had L2 active",
        "cases with L2 active",
        "the same struct sent while L1 is active",
        "proven while L2 was active",
    ),
    "free": _Words(
        "no case had L2 active",
        "cases with L2 active",
        "the same sent while L1 is active",
        "proven while L2 was active; the commit's check does not cover this path",
    ),
}


def _proof(events: list[Event], cases: list[_Case]) -> tuple[Verdict, str, str]:
    """What green cases prove."""
    counted, proven = _counted(events, cases)
    limits = _limits(events)
    by = f" {limits}" if limits else ""
    words = _WORDS["payload" if _is_payload(events) else "refuse"]
    if not _is_payload(events) and by and not any(paths.covered(case) for case in cases):
        words = _WORDS["free"]
    if not counted and cases and _case(events):
        return Verdict.PASS, f"{len(cases)} cases{by}; by themselves they prove nothing of L2", ""
    if not counted:
        return Verdict.INCONCLUSIVE, f"{words.none}{by and f', asked for was{by}'}", _RUN_ALL
    if len(proven) < len(counted):
        lacking = f"{len(counted) - len(proven)} of {len(counted)} {words.ones} lack their control"
        return Verdict.INCONCLUSIVE, f"{lacking}: {words.control}", _RUN_ALL
    reason = f"{len(cases)} cases{by}, {len(proven)} {words.proven}{_beside(events, cases)}"
    return Verdict.PASS, reason, ""


def _beside(events: list[Event], cases: list[_Case]) -> str:
    """What was seen beside the promise: it decides nothing, and is told in the same breath."""
    known = sum(bool(case.get("deviations")) for case in cases)
    found = sum(bool(case.get("finding")) for case in cases)
    told = []
    if known and _is_payload(events):
        told.append(f", {known} with a known deviation")
    elif known:
        told.append(f"; beside the promise {known} are as known of this era")
    if found:
        told.append(f", {found} {'is a finding' if found == 1 else 'are findings'} beside it")
    return "".join(told)


def _tests(events: list[Event], avocado: dict[str, Any] | None) -> list[TestResult]:
    """Each test's own verdict; one that Avocado ended without it is an infra-error."""
    own = {
        e.data["test"]: TestResult(e.data["test"], e.data["verdict"], e.data["reason"])
        for e in events
        if e.kind == "verdict"
    }
    for test in (avocado or {}).get("tests", []):
        name = sentence(test["name"])
        green = test["status"] in ("PASS", "CANCEL", "SKIP")
        said = own.get(name)
        if said is None or (said.verdict == Verdict.PASS and not green):
            why = f"Avocado: {test['status']} {test.get('fail_reason') or ''}".strip()
            own[name] = TestResult(name, Verdict.INFRA_ERROR.value, why)
    # Avocado leaves out what it never came to: an interrupted job would look green.
    for name in fact(events, "job").get("tests", []):
        own.setdefault(name, TestResult(name, Verdict.INFRA_ERROR.value, "it did not run"))
    about = fact(events, "job").get("about", {})
    return [
        replace(test, **{key: about.get(name, {}).get(key, "") for key in ("place", "says")})
        for name, test in own.items()
    ]


def sentence(name: str) -> str:
    """`Class.test_name` of Avocado's `path/file.py:Class.test_name;variant`."""
    return name.rpartition(":")[2].partition(";")[0]


def fact(events: list[Event], subject: str) -> dict[str, Any]:
    """What the timeline says of ``subject`` (job, kernel, host, contract); empty if nothing."""
    for event in events:
        if event.kind == "fact" and event.data["subject"] == subject:
            return {key: value for key, value in event.data.items() if key != "subject"}
    return {}


def _error(events: list[Event]) -> dict[str, Any] | None:
    return next((event.data for event in events if event.kind == "error"), None)


def _seconds(events: list[Event]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for event in events:
        phase = event.data.get("phase") if event.kind == "end" else None
        if phase and event.seconds is not None:
            totals[phase] = round(totals.get(phase, 0.0) + event.seconds, 3)
    ends = [event.at for event in events if event.kind == "end" and event.data["phase"] == "l1"]
    verdicts = [event.at for event in events if event.kind == "verdict"]
    if ends and verdicts:
        totals["tests"] = round(verdicts[-1] - ends[0], 3)
    cases = [e.data for e in events if e.kind == "case" and e.data["repeat"] == 1]
    each = [case["seconds"] for case in cases if "table" not in case]
    if each:
        totals["injection"] = round(statistics.median(each), 3)
    tabled = [case["seconds"] for case in cases if "table" in case]
    if tabled:
        totals["case"] = round(statistics.mean(tabled), 4)
    return totals
