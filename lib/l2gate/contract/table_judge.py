# SPDX-License-Identifier: MIT
"""The oracle for case tables: what a case of a table wants, held against what the helper saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct, field

from l2gate.contract import eras
from l2gate.contract.case_result import Afterwards, TableCase, TableProof
from l2gate.contract.judge import Judgement, Ruling, Verdict
from l2gate.contract.outcome import Registers, Told
from l2gate.contract.paths import HELPER, InjectionPath
from l2gate.contract.table import NUMBERS, Case
from l2gate.contract.words import LANGUAGE
from l2gate.foundation.errors import HelperError
from l2gate.vendors import vendors
from l2gate.vendors.vendor import VALID, Vendor

#: What is there before an injection.
CR2_BEFORE = LANGUAGE.constants["CR2_BEFORE"]
DR6_BEFORE = LANGUAGE.constants["DR6_BEFORE"]

_DR7_GD = 1 << 13
_PF = 14


class Seen(Struct, frozen=True, kw_only=True):
    """The helper's answer to one case (lib/helper/cases_report.c), by its own names.

    ``format`` is the vendor's. ``changed`` is what the ioctl has changed of the vCPU, ``events``
    what KVM_GET_VCPU_EVENTS returned right afterwards. Then the vCPU ran (not if ``who`` is
    `not-run`): ``hits`` is what handlers recorded, ``exit`` what L1 recorded of its VM-exit,
    ``earlier`` of the one before the injection, ``back`` whether L2 and L1 went on; ``cr2``,
    ``dr6`` and ``dr7`` are the vCPU's.
    """

    format: str
    errno: str | None
    nested_state: bool
    guest_mode: bool
    cr3: str
    rip: str
    changed: list[str]
    events: Registers = field(name="returned")
    who: str
    back: bool = False
    hits: list[Registers] = []
    exit: Registers = {}
    earlier: Registers = {}
    cr2: str = "none"
    dr6: str = "none"
    dr7: str | None = None

    @classmethod
    def from_answer(cls, answer: Mapping[str, object], format_: str) -> Seen:
        """Raises HelperError for what is no such answer."""
        try:
            return msgspec.convert({**answer, "format": format_}, cls)
        except msgspec.ValidationError as error:
            raise HelperError(f"the helper's answer to a case cannot be read: {error}") from error

    @property
    def vendor(self) -> Vendor:
        return vendors.named(self.format)

    @property
    def how(self) -> str:
        """By what it is known whether L2 was on the vCPU."""
        if not self.nested_state:
            return f"CR3 {self.cr3} (the kernel has no KVM_GET_NESTED_STATE)"
        says = "says" if self.guest_mode else "denies"
        return f"KVM_GET_NESTED_STATE ({self.vendor.name}) {says} guest mode"

    @property
    def place(self) -> Registers:
        """What the receiver found: its record of the exception, or of the VM-exit."""
        return self.exit or (self.hits[0] if self.hits else {})

    def register(self, name: str) -> str:
        """CR2 or DR6 as the receiver finds it; as the vCPU holds it if nobody got anything."""
        of_vcpu: Registers = {"cr2": self.cr2, "dr6": self.dr6}
        return str((self.place or of_vcpu).get(name, "none"))

    @property
    def returned(self) -> str:
        if self.events["injected"]:
            return "injected"
        if self.events["pending"]:
            return "pending+payload" if self.events["has_payload"] else "pending"
        return "nothing"

    @property
    def code(self) -> str:
        """The error code as the receiver has it, `none` if there is none."""
        if not self.exit:
            code = self.place.get("code")
            return "none" if code is None else str(code)
        return self.vendor.exit_code(self.exit)

    @property
    def qualification(self) -> str:
        return self.vendor.exit_qualification(self.exit)


def table_case(
    test: str, path: InjectionPath, case: Case, seen: Seen | str, steps: eras.Has, seconds: float
) -> TableCase:
    """The whole record of one case of ``test``, its verdict too. ``seen`` is why there is no answer
    if the case could not be conducted: KVM would not do what comes before the injection, or the
    helper has lost its way."""
    if isinstance(seen, str):
        why = f"it could not be conducted: {seen}"
        ruling = Ruling(Judgement(Verdict.INCONCLUSIVE, why))
    else:
        ruling = judge_case(case, seen, steps)
    answer = None if isinstance(seen, str) else seen
    errno = case.expected.get("errno")
    return TableCase(
        test=test,
        table=case.table,
        line=case.line,
        case=case.name,
        path=case.path,
        covered=path.covered_on(HELPER),
        own_struct=path.own_struct,
        vector=case.vector,
        error_code=case.code,
        injected=case.words.get("injected", "0") == "1",
        active_level=case.active,
        asked=case.request,
        sent=case.sent,
        expected={column: str(cell) for column, cell in case.expected.items()},
        expected_errno=errno.right if errno and errno.right != "none" else None,
        seen_errno=answer.errno if answer else None,
        who=answer.who if answer else "not-run",
        verdict=ruling.judgement.verdict,
        reason=ruling.judgement.reason,
        deviations=list(ruling.known),
        finding=ruling.finding,
        seconds=round(seconds, 6),
        proof=_proof(answer) if answer else None,
    )


def _proof(seen: Seen) -> TableProof:
    return TableProof(
        guest_mode=seen.guest_mode,
        how=seen.how,
        cr3=seen.cr3,
        rip=seen.rip,
        unchanged=not seen.changed,
        changed=seen.changed,
        returned=seen.events,
        earlier=seen.earlier or None,
        exit=seen.exit or None,
        liveness=Afterwards(l1=seen.back, l2=seen.back, hits=seen.hits),
    )


def judge_case(case: Case, seen: Seen, steps: eras.Has) -> Ruling:
    """The judgement of one case of a kernel that has made these ``steps``.

    Without proof that the case's level was active it is inconclusive, never a pass. What the
    kernel's era has not promised it cannot break: that is a finding, and the case passes.
    """
    if seen.guest_mode != (case.active == "L2"):
        return Ruling(Judgement(Verdict.INCONCLUSIVE, f"{case.active} was not active: {seen.how}"))
    if unproven := _without_its_past(case, seen):
        return Ruling(Judgement(Verdict.INCONCLUSIVE, unproven))
    known, wrong, promised = _columns(case, seen, steps)
    tail = f"; as known: {'; '.join(known)}" if known else ""
    wrong = wrong or _told(case, seen) or _received_right(case, seen) or _afterwards(seen) or ""
    if not wrong:
        return Ruling(Judgement(Verdict.PASS, f"{_summary(seen)}{tail}"), tuple(known))
    if promised:
        return Ruling(Judgement(Verdict.FAIL, wrong), tuple(known))
    finding = f"{wrong} (not promised before {case.since}: {eras.brought(case.since)})"
    if case.since in ("any", "never"):
        finding = f"{wrong} ({eras.brought('never')})"
    return Ruling(Judgement(Verdict.PASS, f"{_summary(seen)}; finding: {finding}"), (), finding)


def _columns(case: Case, seen: Seen, steps: eras.Has) -> tuple[list[str], str, bool]:
    """The known deviations, the first that is not known, and whether the kernel has promised the
    row. What the receiver finds is not judged where another than the right one is known to be it.
    """
    known: list[str] = []
    promised = eras.promises(case.since, steps)
    for column, expected in case.expected.items():
        value, right = SEEN[column](case, seen), _wanted(case, column, expected.right, seen)
        if value == right:
            continue
        complaint = f"{column} seen {value}, {column} wanted {_words(right, expected.right)}"
        other = _known(case, column, seen, steps)
        if other is None or value != _wanted(case, column, other, seen):
            return known, complaint, promised
        known.append(complaint)
        if column == "who":
            break
    return known, "", promised


def _known(case: Case, column: str, seen: Seen, steps: eras.Has) -> str | None:
    """The deviation that is known of that column. What is known of an era is not tolerated in a
    later one, which has promised better."""
    expected = case.expected[column]
    tolerant = case.since == "any" or not eras.promises(case.since, steps)
    if tolerant and expected.known is not None:
        return expected.known
    if case.path == "nmi":  # no exception: L1's wish was always asked
        return None
    found = (b.of(column, expected.right, seen.format, steps) for b in case.befores)
    return next((known for known in found if known is not None), None)


def _without_its_past(case: Case, seen: Seen) -> str | None:
    """Why nothing stale could have been seen, or None: L2's own #PF must have exited to L1, with
    another error code and exit qualification than the case's."""
    if case.words.get("earlier") != "yes":
        return None
    past = seen.earlier
    if int(str(past.get("interruption_info", "0")), 16) & 0xFF != _PF:
        return "L2's #PF did not exit to L1 before"
    told = (_number(past["error_code"]), _number(past["qualification"]))
    if told[0] == hex(case.code or 0) or told[1] == hex(case.payload or 0):
        return f"the case's error code or payload is that of the VM-exit before, {told}"
    return None


def _number(told: Told) -> str:
    text = str(told)
    return text if text == "none" else f"{int(text, 0):#x}"


def _who(case: Case, seen: Seen) -> str:
    return {
        f"{case.active}-handler": "handler",
        "L1-exit": "exit",
        "L1-vmfail": "vmfail",
    }.get(seen.who, seen.who)


def _exit(_: Case, seen: Seen) -> str:
    return seen.vendor.exit_kind(seen.exit) if seen.exit else "none"


def _info(case: Case, seen: Seen) -> str:
    """Whether L1's VM-exit names the exception, or what it has instead."""
    if not seen.exit:
        return "none"
    if _exit_right(case, seen) is None:
        return "own"
    return _number(seen.vendor.exit_event(seen.exit))


def _vectoring(_: Case, seen: Seen) -> str:
    """Vector, type and whether there is an error code."""
    info = seen.vendor.exit_vectoring(seen.exit) if seen.exit else 0
    return f"{info & 0xFFF:#x}" if info & VALID else "none"


def _gd(_: Case, seen: Seen) -> str:
    """DR7.GD as the receiver finds it: L1 in its VMCS or VMCB, a handler in the register. The
    helper clears it in between if KVM says that it is still set."""
    found = [seen.exit["dr7"]] if seen.exit else [seen.dr7, *(hit["dr7"] for hit in seen.hits)]
    if None in found:  # it did not run
        return "none"
    return "set" if any(int(str(dr7), 16) & _DR7_GD for dr7 in found) else "clear"


#: What was seen, by the name of a table's column.
SEEN: dict[str, Callable[[Case, Seen], str]] = {
    "errno": lambda _, seen: seen.errno or "none",
    "unchanged": lambda _, seen: "no" if seen.changed else "yes",
    "returned": lambda _, seen: seen.returned,
    "who": _who,
    "exit": _exit,
    "info": _info,
    "code": lambda _, seen: _number(seen.code),
    "cr2": lambda _, seen: _number(seen.register("cr2")),
    "dr6": lambda _, seen: _number(seen.register("dr6")),
    "qual": lambda _, seen: _number(seen.qualification) if seen.exit else "none",
    "length": lambda _, seen: _number(seen.exit.get("length", "none")),
    "gd": _gd,
    "vectoring": _vectoring,
}


def _wanted(case: Case, column: str, value: str, seen: Seen) -> str:
    """What ``value`` of a table's cell means for this case."""
    if column == "code" and value == "given":
        if case.code is None:
            told = not seen.exit or seen.vendor.tells_missing_code
            return "none" if told else _number(seen.code)
        return f"{case.code & seen.vendor.code_mask:#x}"
    if value == "same":
        old = case.words.get("old_dr6", "none")
        dr6 = DR6_BEFORE if old == "none" else int(old, 0)
        return f"{(dr6 if column == 'dr6' else CR2_BEFORE):#x}"
    if value == "payload":
        payload = case.payload or 0
        return f"{dr6_after(payload) if column == 'dr6' else payload:#x}"
    return _number(value) if column in NUMBERS and value[0].isdigit() else value


def dr6_after(payload: int) -> int:
    """DR6 after a #DB with that payload (x86.c, kvm_deliver_exception_payload).

    The payload is like VMX's pending debug exceptions: RTM (bit 16) and BLD (bit 11) are active-low
    in DR6, bit 12 is not in DR6.
    """
    active_low = 0xFFFF0FF0
    value = (DR6_BEFORE & ~0xF) | 1 << 16
    value = value & ~(payload & active_low) | (payload & ~active_low)
    return (value & ~(1 << 12)) | 0xFFFE07F0


def _words(value: str, cell: str) -> str:
    return value if value == cell else f"{value} ({cell})"


def _told(case: Case, seen: Seen) -> str | None:
    """What KVM_GET_VCPU_EVENTS returned must be what was sent, to the last bit: it is what a
    migration takes along."""
    if "returned" not in case.expected or seen.returned == "nothing":
        return None
    events, code = seen.events, case.code
    told = [events["vector"], events["has_code"], events["code"]]
    sent = [case.vector, int(code is not None), f"{code or 0:#x}"]
    if events["has_payload"]:
        told.append(events["payload"])
        sent.append(f"{case.payload or 0:#x}")
    if told != sent:
        return f"KVM_GET_VCPU_EVENTS returned {told}, sent {sent} (vector, has code, code, payload)"
    return None


def _received_right(case: Case, seen: Seen) -> str | None:
    """The receiver must have got that exception, once, and no other."""
    if seen.who == "L1-exit":
        if case.expected.get("exit") or case.expected.get("info"):
            return None
        return _exit_right(case, seen)
    vectors = [hit["vector"] for hit in seen.hits]
    wanted = [case.vector] if seen.who in ("L1-handler", "L2-handler") else []
    if seen.errno and case.words.get("first", "none") != "none" and wanted:
        wanted = [int(case.words["first"], 0)]
    if vectors != wanted:
        return f"the IDT was entered for vectors {vectors}, wanted {wanted}"
    return None


def _exit_right(case: Case, seen: Seen) -> str | None:
    """L1 must be told of that very exception."""
    return seen.vendor.not_this_exception(case.vector, seen.exit)


def _afterwards(seen: Seen) -> str | None:
    if seen.back or seen.who in ("shutdown", "entry-fails"):
        return None
    return "L2 does not go on afterwards and leave to L1"


def _summary(seen: Seen) -> str:
    if seen.errno:
        return f"refused with {seen.errno}, {seen.who} got it"
    if seen.who == "nobody":
        return "accepted, nobody got it"
    return f"accepted, {seen.who} got it" if seen.who != "not-run" else "accepted, taken back"
