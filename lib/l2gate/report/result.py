# SPDX-License-Identifier: MIT
"""The result of a job, put together from its timeline and from what Avocado says of its tests.

The JSON that `l2gate run --json FILE` writes is `Result` as it stands here; `l2gate schema` prints
its JSON Schema, which is made from these types.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from l2gate.contract.case_result import CaseResult, TableCase
from l2gate.contract.contracts import Contract
from l2gate.contract.judge import Verdict
from l2gate.contract.paths import ALL
from l2gate.contract.proof import Proven, Question, beside, prove
from l2gate.foundation.errors import UsageError
from l2gate.foundation.events import Event, JobBroke, StepEnded
from l2gate.foundation.files import write_whole
from l2gate.records.descriptions import (
    AboutTest,
    Delivery,
    HostDescription,
    KernelDescription,
    Unasked,
)
from l2gate.records.events import (
    CaseJudged,
    CasesUnasked,
    ContractDecided,
    HostFound,
    JobPlanned,
    KernelComplained,
    KernelFound,
    L1QemuFound,
    SignalAwaited,
    VerdictReached,
)
from l2gate.report.pathcount import PathCount, count
from l2gate.report.provenance import Provenance

SCHEMA_VERSION = 3

K = TypeVar("K", bound=Event)

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
    verdict: Verdict
    reason: str
    place: str = ""
    says: str = ""


@dataclass(frozen=True)
class Broke:
    """What broke the job, and what helps."""

    cause: str
    hint: str


@dataclass(frozen=True)
class Result:
    """What a job found out.

    - ``verdict``, ``reason``, ``hint`` (it may be empty): the whole.
    - ``host``, ``kernel``, ``contract``: null where the job never came to that.
    - ``seconds``: wall seconds per phase (prepare, host, l1, connect, l2, tests, injection, cases,
      case, teardown, total); phases that come once per test are summed, injection is the median of
      one injection with its proof, case is the mean of a table's cases: their batches' wall time
      divided by their number.
    - ``cases``: one entry per injection. ``unasked``: cases that were not asked. ``paths``: one
      entry per way of injecting. ``deliveries``: what became of exceptions accepted for L1.
    - ``logs``: the folder with consoles, timeline and test logs.
    - ``settings``: those that were asked for. ``asked``: the tests as they were named (empty: all).
    - ``error``: what broke the job (null: nothing did). ``complaints``: what L0's kernel has said
      of a fault of its own.

    Version 3: `hint` was `mend`, a proof's `fingerprint` was `marker`. Each case has its kind
    (`vcpu` or `table`), covered and own_struct; one that could not be conducted has a proof of
    null. Fields of a proof that have nothing to say are left out. host, kernel and contract are
    null where they
    were empty. Events of a timeline have a class, and fields of their own, for each kind.
    """

    verdict: Verdict
    reason: str
    host: HostDescription | None
    kernel: KernelDescription | None
    contract: Contract | None
    seconds: dict[str, float]
    tests: list[TestResult]
    cases: list[CaseResult]
    deliveries: list[Delivery] = field(default_factory=list)
    paths: list[PathCount] = field(default_factory=list)
    unasked: list[Unasked] = field(default_factory=list)
    hint: str = ""
    logs: str = ""
    schema_version: int = SCHEMA_VERSION
    settings: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    error: Broke | None = None
    complaints: list[str] = field(default_factory=list)
    provenance: Provenance | None = None

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        write_whole(path, json.dumps(self.to_json(), indent=1) + "\n")

    def to_json(self) -> Any:
        """As it stands in the file."""
        return msgspec.json.decode(msgspec.json.encode(self))

    @classmethod
    def from_json(cls, raw: Any) -> Result:
        """From what stands in a file. Raises ValueError for what is no result of this version."""
        found = msgspec.convert(raw, cls)
        if found.schema_version != SCHEMA_VERSION:
            raise ValueError(f"a result of schema_version {found.schema_version}")
        return found


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of what `l2gate run --json FILE` writes."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **msgspec.json.schema(Result),
    }


#: Of the failed tests that many are named in the verdict.
_NAMED = 3


def assemble(
    events: list[Event],
    avocado: dict[str, Any] | None,
    settings: dict[str, str],
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
    cases = cases_of(events)
    proven = _overall(events, avocado, tests, cases)
    seconds = _seconds(events)
    seconds["total"] = round(total_seconds, 3)
    host, kernel, contract = (
        last(events, HostFound),
        last(events, KernelFound),
        last(events, ContractDecided),
    )
    l1_qemu, error = last(events, L1QemuFound), first(events, JobBroke)
    return Result(
        verdict=proven.verdict,
        reason=proven.reason,
        hint=proven.hint,
        host=host.host if host else None,
        kernel=kernel.kernel if kernel else None,
        contract=contract.contract if contract else None,
        seconds=seconds,
        tests=tests,
        cases=cases,
        deliveries=[event.delivery for event in _all(events, SignalAwaited)],
        paths=count(cases, question(events).path),
        unasked=[event.unasked for event in _all(events, CasesUnasked)],
        logs=logs,
        settings=settings,
        asked=list(asked),
        error=Broke(error.cause, error.hint) if error else None,
        complaints=[event.said for event in _all(events, KernelComplained)],
        provenance=began
        and began.of_job(
            total_seconds,
            host.host if host else None,
            kernel.kernel if kernel else None,
            l1_qemu.version if l1_qemu else "",
        ),
    )


def exit_code(result: Result, events: list[Event]) -> int:
    """What `l2gate run` ends with."""
    error = first(events, JobBroke)
    if error and error.exit_code == USAGE_EXIT_CODE:
        return USAGE_EXIT_CODE
    return EXIT_CODES[result.verdict]


def question(events: Sequence[Event]) -> Question:
    """What a job was asked."""
    job, decided = first(events, JobPlanned), last(events, ContractDecided)
    return Question(
        decided.contract.name if decided else "",
        job.path if job else ALL,
        job.case if job else "",
    )


def cases_of(events: Sequence[Event]) -> list[CaseResult]:
    """The cases of a timeline."""
    return [event.case for event in _all(events, CaseJudged)]


def first(events: Iterable[Event], kind: type[K]) -> K | None:
    """The first event of that kind, or None."""
    return next((event for event in events if isinstance(event, kind)), None)


def last(events: Iterable[Event], kind: type[K]) -> K | None:
    """The last event of that kind, or None: what a job began with may have been given up."""
    return next((event for event in reversed(list(events)) if isinstance(event, kind)), None)


def _all(events: Iterable[Event], kind: type[K]) -> list[K]:
    return [event for event in events if isinstance(event, kind)]


def _overall(
    events: list[Event],
    avocado: dict[str, Any] | None,
    tests: list[TestResult],
    cases: list[CaseResult],
) -> Proven:
    """The worst of what was seen."""
    failed = [test for test in tests if test.verdict == Verdict.FAIL]
    complaints = _all(events, KernelComplained)
    broken = [case for case in cases if case.verdict == Verdict.FAIL]
    asked = question(events)
    if failed or broken:
        names = _first(test.name for test in failed) or broken[0].test
        reason = f"{len(broken)} of {len(cases)} cases break the contract ({names})"
        return Proven(Verdict.FAIL, reason + beside(asked, cases))
    if complaints:
        hint = "the whole of it is in the job's L0 console"
        return Proven(Verdict.FAIL, complaints[0].text, hint)
    if error := first(events, JobBroke):
        return Proven(Verdict.INFRA_ERROR, error.cause, error.hint)
    if avocado is None:
        return Proven(Verdict.INFRA_ERROR, "the job did not come to its end", "see the job's log")
    for worst in (Verdict.INFRA_ERROR, Verdict.INCONCLUSIVE):
        for test in tests:
            if test.verdict == worst:
                return Proven(worst, f"{test.name}: {test.reason}")
    if tests and all(test.verdict == Verdict.SKIP for test in tests):
        by = f"no test was asked {asked.limits}: " if asked.limits else ""
        return Proven(Verdict.SKIP, f"{by}{tests[0].reason}")
    return prove(asked, cases)


def _first(names: Iterable[str]) -> str:
    """Some of them, and how many more there are."""
    some = list(names)
    more = f" and {len(some) - _NAMED} more tests" if len(some) > _NAMED else ""
    return ", ".join(some[:_NAMED]) + more


def _tests(events: list[Event], avocado: dict[str, Any] | None) -> list[TestResult]:
    """Each test's own verdict; one that Avocado ended without it is an infra-error."""
    own = {
        event.test: TestResult(event.test, event.verdict, event.reason)
        for event in _all(events, VerdictReached)
    }
    for test in (avocado or {}).get("tests", []):
        name = sentence(test["name"])
        green = test["status"] in ("PASS", "CANCEL", "SKIP")
        said = own.get(name)
        if said is None or (said.verdict == Verdict.PASS and not green):
            why = f"Avocado: {test['status']} {test.get('fail_reason') or ''}".strip()
            own[name] = TestResult(name, Verdict.INFRA_ERROR, why)
    job = first(events, JobPlanned)
    # Avocado leaves out what it never came to: an interrupted job would look green.
    for name in job.tests if job else ():
        own.setdefault(name, TestResult(name, Verdict.INFRA_ERROR, "it did not run"))
    nothing = AboutTest()
    about = {name: (job.about if job else {}).get(name, nothing) for name in own}
    return [
        replace(test, place=about[name].place, says=about[name].says) for name, test in own.items()
    ]


def sentence(name: str) -> str:
    """`Class.test_name` of Avocado's `path/file.py:Class.test_name;variant`."""
    return name.rpartition(":")[2].partition(";")[0]


def _seconds(events: list[Event]) -> dict[str, float]:
    totals: dict[str, float] = {}
    ends = _all(events, StepEnded)
    for event in ends:
        if event.phase:
            totals[event.phase] = round(totals.get(event.phase, 0.0) + event.seconds, 3)
    l1_up = [event.at for event in ends if event.phase == "l1"]
    verdicts = [event.at for event in _all(events, VerdictReached)]
    if l1_up and verdicts:
        totals["tests"] = round(verdicts[-1] - l1_up[0], 3)
    cases = [case for case in cases_of(events) if case.repeat == 1]
    each = [case.seconds for case in cases if not isinstance(case, TableCase)]
    if each:
        totals["injection"] = round(statistics.median(each), 3)
    tabled = [case.seconds for case in cases if isinstance(case, TableCase)]
    if tabled:
        totals["case"] = round(statistics.mean(tabled), 4)
    return totals
