# SPDX-License-Identifier: MIT
"""What a person sees in the end: the verdict, and what it rests on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from l2gate.contract.case_result import CaseResult, TableCase, VcpuCase
from l2gate.contract.judge import Verdict
from l2gate.contract.paths import ALL, COMMIT
from l2gate.contract.vectors import EXCEPTIONS, name
from l2gate.report import again
from l2gate.report.findings import Finding, findings, hint_of
from l2gate.report.progress import COLOURS, Progress
from l2gate.report.result import Result
from l2gate.report.words import (
    afterwards,
    deviation,
    listed,
    ranges,
    stopped_by_design,
)
from l2gate.vendors import vendors

__all__ = ["COLOURS", "Progress", "show"]

#: That many are told in full.
_MOST_FINDINGS = 8
_INDENT = " " * 10


def show(console: Console, result: Result, *, quiet: bool = False) -> None:
    """The verdict, and what it rests on; with ``quiet`` only what is wrong and the verdict."""
    report = _Report(console, result)
    if not quiet:
        report.evidence()
    report.wrong()
    if not quiet:
        report.ground()
    report.verdict()


class _Report:
    def __init__(self, console: Console, result: Result) -> None:
        self._console, self._result = console, result
        self._findings = findings(result) if result.verdict != Verdict.PASS else []

    def evidence(self) -> None:
        """What a green verdict rests on, and by which ways it was asked."""
        self._say("")
        if self._result.verdict == Verdict.PASS:
            self._rows(_vector_rows(self._result))
            self._rows(_table_rows(self._result))
            self._rows(_qemu_rows(self._result))
        self._rows(_path_rows(self._result))
        for line in _notes(self._result):
            self._say(line)

    def wrong(self) -> None:
        """Each failure once, the worst first."""
        for finding in self._findings[:_MOST_FINDINGS]:
            self._finding(finding)
        if len(self._findings) > _MOST_FINDINGS:
            self._say(f"{_INDENT}and {len(self._findings) - _MOST_FINDINGS} more; --json has all\n")

    def _finding(self, finding: Finding) -> None:
        head = finding.verdict.upper()
        for index, (what, text) in enumerate(finding.lines):
            mark = Text(f"{head if not index else '':<13} ", style=COLOURS[finding.verdict])
            self._print(mark + Text(f"{what:<7} {text}"))
        self._say("")

    def ground(self) -> None:
        """Contract, host, kernel, and where the result comes from."""
        for line in _ground(self._result):
            self._say(line)

    def verdict(self) -> None:
        result = self._result
        reason, hint = hint_of(result.reason)
        if result.verdict in (Verdict.INFRA_ERROR, Verdict.INCONCLUSIVE) and self._findings:
            reason, hint = result.error.cause if result.error else self._summary(), ""
        head = Text(f"{'verdict':<10}")
        head += Text(result.verdict.upper(), style=COLOURS[result.verdict])
        self._print(head + Text(f": {reason}"))
        if hint := result.hint or hint:
            self._say(f"{'hint':<10}{hint}")
        if result.error or not self._findings:
            self._again()

    def _again(self) -> None:
        """The line for a verdict that no test alone stands for."""
        result = self._result
        settings = again.of_run(result)
        if result.verdict == Verdict.INFRA_ERROR:
            self._say(f"{'again':<10}{again.run_line(settings, result.asked)}")
        elif result.verdict == Verdict.INCONCLUSIVE:  # what was left out may be what is lacking
            settings |= {"case": "", "path": ALL}
            self._say(f"{'again':<10}{again.run_line(settings)}")

    def _summary(self) -> str:
        tests = Counter(test.verdict for test in self._result.tests)
        such = tests[self._result.verdict]
        means = "the bench broke, not the kernel"
        if self._result.verdict == Verdict.INCONCLUSIVE:
            means = "nothing is said of the kernel"
        return f"{such} of {len(self._result.tests)} tests, see above: {means}"

    def _rows(self, rows: list[str]) -> None:
        for row in rows:
            self._say(row)
        if rows:
            self._say("")

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


# --- what a green verdict rests on ----------------------------------------------------------------

_ROW = "{:<34} {:<7} {:<10} {:<32} {:<10} {:<20} {:<10} {}"


def _vector_rows(result: Result) -> list[str]:
    """How vectors were refused while L2 was active, and by what that is known: one row for all
    that went alike."""
    grouped: dict[int, list[VcpuCase]] = defaultdict(list)
    for case in result.cases:
        refusal = case.active_level == "L2" and case.expected_errno
        if refusal and isinstance(case, VcpuCase) and not case.by_qemu:
            grouped[case.vector].append(case)
    if not grouped:
        return []
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for vector, cases in sorted(grouped.items()):
        alike[(vector in EXCEPTIONS, *_cells(cases))].append(vector)
    heads = ("refused while L2 was active", "with", "tries each", "known to be active by",
             "its CR3", "its RIP", "vCPU state", "afterwards")  # fmt: skip
    rows = [_ROW.format(*heads)]
    for (exception, errno, *cells), numbers in alike.items():
        tries = sorted({sum(case.repeat for case in grouped[number]) for number in numbers})
        times = "-".join(str(one) for one in dict.fromkeys((tries[0], tries[-1])))
        rows.append(_ROW.format(_vectors(numbers, exception), errno, times, *map(str, cells)))
    if any(vector not in EXCEPTIONS for vector in grouped):
        rows.append("Vector 2 (NMI) and those above 31 are no exceptions: KVM refuses them always.")
    if any(_FINGERPRINT in row for row in rows):
        rows.append("Fingerprint: CR3, RIP and R15 at that ioctl are those that only this L2 has.")
    return rows


def _vectors(numbers: list[int], exception: bool) -> str:
    if len(numbers) == 1:
        own = name(numbers[0])
        return f"vector {numbers[0]}" + ("" if own.startswith("vector") else f" {own}")
    what = "exceptions" if exception else "others"
    return f"{len(numbers)} {what}: {ranges(numbers)}"


def _cells(cases: list[VcpuCase]) -> tuple[Any, ...]:
    proofs = [case.proof for case in cases]
    return (
        ", ".join(sorted({str(case.seen_errno) for case in cases})),
        _active_by(proofs[0].how),
        _some(proof.cr3 for proof in proofs),
        _some(proof.rip for proof in proofs),
        "unchanged" if all(proof.unchanged for proof in proofs) else "CHANGED",
        listed(afterwards(case) for case in cases),
    )


def _some(values: Iterable[str]) -> str:
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else f"{found[0]}, others"


def _active_by(how: str) -> str:
    kind = next((name for name in vendors.NAMES if f"({name})" in how), "")
    if not kind:
        return "its fingerprint in the registers"
    said = f"KVM_GET_NESTED_STATE ({kind})"
    return f"{said}{_FINGERPRINT}" if "marked" in how else said


_FINGERPRINT = ", fingerprint"


_TABLE_ROW = "{:<26} {:>6} {:>10} {:>11} {:>8} {:>8}"


def _table_rows(result: Result) -> list[str]:
    """One row per case table: how many cases, and who got what userspace sent."""
    grouped: dict[str, list[TableCase]] = defaultdict(list)
    for case in result.cases:
        if isinstance(case, TableCase):
            grouped[case.table].append(case)
    if not grouped:
        return []
    rows = ["Cases of tables, and who got the exception in those with L2 active: its own handler,"]
    rows.append("L1 by a VM-exit, or nobody (refused, or taken back before the vCPU ran).")
    heads = ("table", "cases", "L2 active", "L2 handler", "L1 exit", "nobody")
    rows.append(_TABLE_ROW.format(*heads))
    for table, cases in grouped.items():
        in_l2 = [case for case in cases if case.active_level == "L2"]
        who = Counter(case.who for case in in_l2)
        counts = (len(cases), len(in_l2), who["L2-handler"], who["L1-exit"], who["nobody"])
        rows.append(_TABLE_ROW.format(table, *counts))
    return rows


def _qemu_rows(result: Result) -> list[str]:
    """What QEMU was made to inject by itself, and what became of it."""
    rows = []
    for case in result.cases:
        if case.by_qemu:
            by = f"{case.path} {name(case.vector)}"
            rows.append(f"{by:<26} {case.active_level} active  {case.reason}")
            if stopped_by_design(case):
                rows.append(f"{'':<37}(QEMU 10 stops its VM, here L1, by design when that happens)")
    return ["Injected by L0's QEMU itself, into L1's vCPU:", *rows] if rows else []


_PATH_ROW = "{:<12} {:<52} {:<22} {:>6} {:>10} {:>8}"


def _path_rows(result: Result) -> list[str]:
    """One row per way of injecting: whether the commit's check covers it, and its cases."""
    used = [path for path in result.paths if path.chosen and path.cases]
    if not used:
        return []
    heads = ("path", "how", f"covered by {COMMIT}", "cases", "L2 active", "passing")
    rows = [_PATH_ROW.format(*heads)]
    for path in used:
        counts = (path.cases, path.l2_active, path.passing)
        said = "yes" if path.covered else "no, it never was"
        rows.append(_PATH_ROW.format(path.name, path.how, said, *counts))
    return rows


def _notes(result: Result) -> list[str]:
    """Known deviations, and what was skipped and why: each once."""
    known = Counter(
        f"{_place(case)}: {deviation(text, case.active_level)}"
        for case in result.cases
        for text in case.deviations
    )
    lines = [
        f"known     as the table tells: {text} ({count} case{'s'[: count > 1]})"
        for text, count in known.items()
    ]
    skipped = [test for test in result.tests if test.verdict == Verdict.SKIP]
    if result.verdict != Verdict.SKIP:
        whys: dict[str, list[str]] = defaultdict(list)
        for test in skipped:
            whys[hint_of(test.reason)[0]].append(test.name)
        for why, names in whys.items():
            what = names[0] if len(names) == 1 else f"{len(names)} tests"
            lines.append(f"skipped   {what}: {why}")
    lines += [f"FINDING   {place}: {text}" for place, text in _found(result)]
    lines += [
        f"not asked {lack.cases} cases of {lack.table}, which need {lack.lacks}"
        for lack in result.unasked
    ]
    return [*lines, ""] if lines else []


def _found(result: Result) -> Iterator[tuple[str, str]]:
    """What is neither known of the kernel's era nor was promised by it: it decides nothing."""
    for case in result.cases:
        if case.finding:
            asked = f" ({case.asked})" if isinstance(case, TableCase) else ""
            yield f"{_place(case)}{asked}", case.finding


def _place(case: CaseResult) -> str:
    """The row of a case, or by which way QEMU was made to inject what."""
    if isinstance(case, TableCase):
        return case.row
    return f"QEMU's {case.path} {name(case.vector)}"


# --- what was asked -------------------------------------------------------------------------------

#: Of the seconds, those that are one after another.
_PHASES = {"prepare": "kernel and images", "host": "L0 boots", "keep": "they are kept",
           "l1": "L1 boots", "tests": "tests",
           "teardown": "L1 and L0 end"}  # fmt: skip


def _ground(result: Result) -> list[str]:
    lines = []
    if result.contract:
        contract = result.contract
        lines.append(f"contract  {contract.name}: {contract.why}; decided by {contract.commit}")
    if result.host:
        host = result.host
        machine = host.emulator or host.cpu_model
        l1 = result.provenance.l1_qemu if result.provenance else ""
        lines.append(
            f"host      {host.spec} ({machine}), {host.virtualization}, "
            f"{host.kvm_module} nested={host.nested}"
            + (f"; L1 in QEMU {l1}" if l1 else "")
            + (f"; from a template booted at {host.template}" if host.template else "")
        )
    if result.kernel:
        kernel = result.kernel
        lines.append(f"kernel    {kernel.spec}: {kernel.release}, {kernel.description}")
    spent = [
        f"{what} {result.seconds[phase]:.1f}"
        for phase, what in _PHASES.items()
        if phase in result.seconds
    ]
    total = result.seconds.get("total", 0.0)
    lines.append(f"seconds   {', '.join([*spent, f'in all {total:.1f}'])}")
    if result.provenance:
        asked, where = result.provenance.lines()
        lines += [f"asked     {asked}", f"from      {where}"]
    return [*lines, f"logs      {result.logs}"]
