# SPDX-License-Identifier: MIT
"""What is said of a case of a result (l2gate/report/result.py), for terminal and page alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from l2gate.contract.case_result import CaseResult, TableCase, TableProof
from l2gate.contract.judge import Verdict
from l2gate.contract.vectors import label


class HasVector(Protocol):
    """A case, or what became of one."""

    @property
    def vector(self) -> int: ...


#: As the judges say it: `errno seen none (accepted), errno wanted EINVAL`.
_COLUMN = re.compile(r"^(?P<what>\w+) seen (?P<seen>.+?), (?P=what) wanted (?P<wanted>.+)$")
#: `the IDT was entered for vectors [], wanted [13]`.
_OTHER = re.compile(r"^(?P<seen>.+), wanted:? (?P<wanted>.+)$")
#: More labels than that are told as numbers.
_MOST_LABELS = 4

_WHO = {
    "handler": "{level}'s own handler gets it",
    "exit": "L1 gets a VM-exit",
    "vmfail": "L1's VM entry fails",
    "entry-fails": "KVM_RUN cannot enter the guest",
    "shutdown": "the VM shuts down",
    "nobody": "nobody gets it",
    "not-run": "it does not run",
}
_COLUMNS = {
    "returned": "KVM_GET_VCPU_EVENTS returns: {value}",
    "code": "error code {value}",
    "cr2": "CR2 {value}",
    "dr6": "DR6 {value}",
    "qual": "exit qualification {value}",
    "length": "instruction length of the VM-exit {value}",
    "gd": "DR7.GD {value}",
    "exit": "the VM-exit is for: {value}",
    "vectoring": "IDT-vectoring information {value}",
}
_YET_CHANGED = "refused, yet the vCPU's state changed"
#: How a table's own word beside a value reads.
_BESIDE = {"(same)": "(as before)", "(payload)": "(the payload)", "(given)": "(as it was sent)"}


def what(case: CaseResult) -> str:
    """Which case it is."""
    if isinstance(case, TableCase):
        return f"{case.row}: {case.asked}"
    asked = "" if case.injected else " injected=0"
    times = f", {case.repeat} times" if case.repeat > 1 else ""
    named = label(case.vector, case.error_code)
    return f"{case.test}: {named}{asked} with {case.active_level} active{times}"


def wanted_and_seen(case: CaseResult) -> tuple[str, str]:
    """What had to be, and what was instead, of a case that does not pass."""
    reason = case.reason
    level = case.active_level
    if case.verdict == Verdict.INCONCLUSIVE:
        return f"proof that {level} is active, and an answer", reason
    if found := _COLUMN.match(reason):
        column, wanted, seen = found.group("what", "wanted", "seen")
        refused = case.expected_errno and case.seen_errno == case.expected_errno
        if column == "unchanged" and refused:
            return _promised(case), _YET_CHANGED
        if column == "errno" and case.expected_errno:
            return _promised(case), _cell(column, seen, level)
        return _cell(column, wanted, level), _cell(column, seen, level)
    if reason.startswith("refused, yet it changed"):  # what it was is in the proof
        return _promised(case), _YET_CHANGED
    if found := _OTHER.match(reason):
        return found.group("wanted"), found.group("seen")
    return _promised(case), reason


def deviation(text: str, level: str) -> str:
    """A known deviation, as the judges say it, in plain words."""
    found = _COLUMN.match(text)
    if not found:
        return text
    column, wanted, seen = found.group("what", "wanted", "seen")
    return f"{_cell(column, seen, level)}, wanted: {_cell(column, wanted, level)}"


def _cell(column: str, value: str, level: str) -> str:
    if column == "errno":
        errno = value.split()[0]
        return "accepted" if errno == "none" else f"refused with {errno}"
    if column == "who":
        return _WHO.get(value, value).format(level=level)
    if column == "unchanged":
        return f"the vCPU's state {'unchanged' if value == 'yes' else 'changed'}"
    for ours, plain in _BESIDE.items():
        value = value.replace(ours, plain)
    return _COLUMNS.get(column, f"{column} {{value}}").format(value=value)


def _promised(case: CaseResult) -> str:
    if case.expected_errno:
        return f"refused with {case.expected_errno}, nothing changed, L1 and L2 go on"
    if case.by_qemu:  # QEMU's own ioctl; only a refused case of it has no `wanted`
        return "refused: neither L1 nor L2 gets it"
    return "accepted, and L1 and L2 go on"


def proof(case: CaseResult) -> str:
    """How it was known which level was active, and what became of the vCPU."""
    told = case.proof
    if told is None:
        return "none: it was not conducted"
    parts = [told.how, f"CR3 {told.cr3}, RIP {told.rip}"]
    if not case.by_qemu:
        changed = ", ".join(told.changed)
        parts.append(f"changed: {changed}" if changed else "nothing changed")
    if isinstance(told, TableProof) and told.exit:
        parts.append(f"VM-exit reason {told.exit.get('reason')}")
    return "; ".join([*parts, afterwards(case)])


#: States of QEMU's VM in which it has not stopped for what it was refused.
_GOES_ON = (None, "running", "paused", "debug")


def afterwards(case: CaseResult) -> str:
    """Whether L1 and L2 went on; if QEMU has stopped L1, why that is right."""
    qemu = _state_of_qemu(case)
    if qemu not in _GOES_ON:
        why = "QEMU stopped L1"
        if stopped_by_design(case):
            why += ", as QEMU 10 does by design when KVM refuses its own ioctl"
        return f"{why} ({qemu})"
    l1, l2 = (case.proof.liveness.l1, case.proof.liveness.l2) if case.proof else (False, False)
    if l1 == l2:
        return "L1 and L2 went on" if l1 else "L1 and L2 did not go on"
    return "L1 went on, L2 did not" if l1 else "L2 went on, L1 did not"


def stopped_by_design(case: CaseResult) -> bool:
    """Whether QEMU stopped L1 as it must: KVM refused what QEMU itself sent, as it had to."""
    stopped = _state_of_qemu(case) not in _GOES_ON
    return bool(stopped and case.verdict is Verdict.PASS and case.seen_errno)


def _state_of_qemu(case: CaseResult) -> str | None:
    return None if isinstance(case, TableCase) else case.qemu


def vectors(cases: Iterable[HasVector]) -> str:
    """All vectors of the cases: `#GP(13), #PF(14)`, `31 vectors (0-1, 3-31)`."""
    numbers = sorted({case.vector for case in cases})
    if len(numbers) <= _MOST_LABELS:
        return ", ".join(label(number, None) for number in numbers)
    return f"{len(numbers)} vectors ({ranges(numbers)})"


def ranges(numbers: Sequence[int]) -> str:
    """`0-1, 3-31` of sorted numbers."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def listed(names: Iterable[str], most: int = 3, one: str = "more") -> str:
    """Some of them, and how many more there are."""
    some = list(dict.fromkeys(names))
    more = f" and {len(some) - most} {one}" if len(some) > most else ""
    return ", ".join(some[:most]) + more
