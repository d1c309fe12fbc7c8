"""What a person sees: the levels as they come up, each injection, the verdict and its proof."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from rich.console import Console
from rich.text import Text

from l2gate.contract.judge import Verdict
from l2gate.injection.vectors import label, name
from l2gate.report.progress import COLOURS, Progress
from l2gate.report.result import Result

__all__ = ["COLOURS", "Progress", "show"]

_MOST_FAILURES = 12


def show(console: Console, result: Result) -> None:
    """The verdict, and what it rests on."""
    console.print()
    if result.verdict == Verdict.PASS:
        _show_proof(console, result)
        _show_tables(console, result)
    if result.verdict == Verdict.FAIL:
        _show_failures(console, result)
    _show_paths(console, result)
    if result.contract:
        contract = result.contract
        console.print(
            f"contract  {contract['name']}: {contract['why']}; decided by {contract['commit']}",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip
    if result.host:
        machine = result.host["emulator"] or result.host["cpu_model"]
        console.print(
            f"host      {result.host['spec']} ({machine}), "
            f"{result.host['virtualization']}, {result.host['kvm_module']} "
            f"nested={result.host['nested']}",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip
    if result.kernel:
        console.print(
            f"kernel    {result.kernel['spec']}: {result.kernel['release']}, "
            f"{result.kernel['description']}",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip
    phases = ", ".join(f"{phase} {_short(seconds)}" for phase, seconds in result.seconds.items())
    for line in (f"seconds   {phases}", f"logs      {result.logs}"):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    verdict = Text("verdict   ") + Text(result.verdict.upper(), style=COLOURS[result.verdict])
    console.print(verdict + Text(f": {result.reason}"), soft_wrap=True)
    if result.mend:
        console.print(f"mend      {result.mend}", soft_wrap=True, markup=False)


def _short(seconds: float) -> str:
    return f"{seconds:.4f}" if seconds < 0.05 else f"{seconds:.1f}"


_ROW = "{:<8} {:<8} {:>5}  {:<24} {:<10} {:<18} {:<10} {}"


def _show_proof(console: Console, result: Result) -> None:
    """One row per vector: how it was refused while L2 was active, and by what that is known."""
    grouped = _by_vector(result)
    if not grouped:
        return
    heads = ("vector", "errno", "tries", "L2 active by", "CR3", "RIP", "state", "afterwards")
    rows = [_ROW.format(*heads)]
    for vector, cases in sorted(grouped.items()):
        proofs = [case["proof"] for case in cases]
        alive = all(p["liveness"]["l1"] and p["liveness"]["l2"] for p in proofs)
        rows.append(
            _ROW.format(
                f"{vector:<3}{name(vector) if not name(vector).startswith('vector') else ''}",
                ", ".join(sorted({str(case["seen_errno"]) for case in cases})),
                sum(case["repeat"] for case in cases),
                _active_by(proofs[0]["how"]),
                proofs[0]["cr3"],
                proofs[0]["rip"],
                "unchanged" if all(p["unchanged"] for p in proofs) else "CHANGED",
                "L1 and L2 alive" if alive else "NOT ALIVE",
            )
        )
    for row in rows:
        console.print(row, soft_wrap=True, markup=False)
    console.print()


def _active_by(how: str) -> str:
    kind = "VMX" if "(VMX)" in how else "SVM" if "(SVM)" in how else ""
    return f"{kind} nested state, marks" if "marked" in how else f"{kind} nested state"


def _by_vector(result: Result) -> dict[int, list[dict[str, Any]]]:
    grouped: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for case in result.cases:
        if case["active_level"] == "L2" and case["expected_errno"] and "table" not in case:
            grouped[case["vector"]].append(case)
    return grouped


_TABLE_ROW = "{:<26} {:>6} {:>10} {:>11} {:>8} {:>7}  {}"


def _show_tables(console: Console, result: Result) -> None:
    """One row per case table: how many cases, and who got what userspace sent."""
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for case in result.cases:
        if "table" in case:
            grouped[case["table"]].append(case)
    if not grouped:
        return
    heads = ("table", "cases", "L2 active", "L2-handler", "L1-exit", "nobody", "known deviations")
    rows = [_TABLE_ROW.format(*heads)]
    for table, cases in grouped.items():
        in_l2 = [case for case in cases if case["active_level"] == "L2"]
        who = Counter(case["who"] for case in in_l2)
        known = Counter(f"{c['case']}: {text}" for c in cases for text in c["deviations"])
        counts = (len(cases), len(in_l2), who["L2-handler"], who["L1-exit"], who["nobody"])
        rows.append(_TABLE_ROW.format(table, *counts, "; ".join(known) or "none"))
    for row in rows:
        console.print(row, soft_wrap=True, markup=False)
    console.print()


_PATH_ROW = "{:<12} {:<52} {:<8} {:>6} {:>10} {:>8}"


def _show_paths(console: Console, result: Result) -> None:
    """One row per way of injecting: whether the commit's check covers it, and its cases."""
    if not result.cases:
        return
    heads = ("path", "how", "covered", "cases", "L2 active", "passing")
    rows = [_PATH_ROW.format(*heads)]
    for path in result.paths:
        if path["chosen"]:
            counts = (path["cases"], path["l2_active"], path["passing"])
            said = "yes" if path["covered"] else "no"
            rows.append(_PATH_ROW.format(path["name"], path["how"], said, *counts))
    for row in rows:
        console.print(row, soft_wrap=True, markup=False)
    console.print()


def _show_failures(console: Console, result: Result) -> None:
    """Cases that fail for the same reason in one line."""
    grouped: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for case in result.cases:
        if case["verdict"] == Verdict.FAIL:
            row = f"{case['table']}.txt:{case['line']} " if "table" in case else ""
            key = (case["test"], case["active_level"], f"{row}{case['reason']}")
            grouped[key].append(label(case["vector"], case["error_code"]))
    for (test, level, reason), names in list(grouped.items())[:_MOST_FAILURES]:
        text = f"{test}: with {level} active, {reason}: {', '.join(dict.fromkeys(names))}"
        console.print(Text("FAIL      ", style="bold red") + Text(text), soft_wrap=True)
    if len(grouped) > _MOST_FAILURES:
        console.print(f"          and {len(grouped) - _MOST_FAILURES} more; see --json")
    for test_result in result.tests:
        if test_result.verdict == Verdict.FAIL:
            text = f"{test_result.name}: {test_result.reason}"
            console.print(Text("FAIL      ", style="bold red") + Text(text), soft_wrap=True)
