# SPDX-License-Identifier: MIT
"""Case tables on VMs of the helper's own: one process and one batch for each table."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from l2gate.contract import eras
from l2gate.contract.choice import words_of_row
from l2gate.contract.paths import ALL
from l2gate.contract.table import Case, Platform, Table, load
from l2gate.contract.table_judge import Seen, table_case
from l2gate.contract.vectors import label
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, NotHere
from l2gate.injection.evidence import Evidence, none_chosen
from l2gate.injection.paths import find
from l2gate.records.descriptions import Unasked
from l2gate.records.events import CasesUnasked
from l2gate.transport.connection import Remote
from l2gate.vendors import vendors

_START_SECONDS = 20
_CASE_SECONDS = 0.05

#: The bit of KVM_CAP_SYNC_REGS's value for struct kvm_vcpu_events (include/uapi: asm/kvm.h).
_KVM_SYNC_X86_EVENTS = 1 << 2


class StandaloneVm(Evidence):
    """The helper's own VM on L0 (lib/helper/cases.c); QEMU and L1's Linux have no part in it."""

    needs_l1 = False

    def _connect(self) -> None:
        self._l0 = self._connection("L0")

    def must_keep(self, name: str) -> None:
        """Every case of that table (lib/l2gate/contract/cases) must come out as its row says: all
        of this kernel's contract are asked, judged, and kept as evidence.

        Raises CaseTableError for a table that cannot be read, NotHere if none of its cases is about
        this host, kernel or path, HelperError if the helper breaks off.
        """
        table = load(name)
        cases = _on_path(table, self.facts.contract.name, self.facts.path)
        cases = self.choice.of(cases)
        if not cases:
            raise none_chosen(f"the table {name} has", self.choice)
        with self.timeline.step("L0", f"case table {name}", "cases"):
            start = time.monotonic()
            platform, cases, answers = self._ask(cases)
            each = (time.monotonic() - start) / max(1, len(cases))
        if not any(self.choice.takes(words_of_row(case)) for case in cases):
            raise _about_another(table, platform)
        for case, answer in zip(cases, answers, strict=True):
            if isinstance(answer, str) and _restored_too_early(case, platform):
                self._unasked(case.table, 1, f"a KVM that restores L2 as 5.8 does: {answer}")
            else:
                self._conclude(case, answer, platform, each)

    def _ask(self, cases: Sequence[Case]) -> tuple[Platform, list[Case], list[Seen | str]]:
        """The cases that hold here and their answers, by one process over one channel. What could
        not be conducted is asked once more, of another process and VM: in 4.20 a level now and then
        does not start in one that has seen a migration. Else there is why instead of an answer."""
        platform, here, answers = self._batch(cases)
        self._tell_unasked(cases, platform)
        left = [index for index, answer in enumerate(answers) if isinstance(answer, str)]
        if left:
            for index in left:
                self._lost(here[index], str(answers[index]))
            _, _, again = self._batch([here[index] for index in left])
            for index, answer in zip(left, again, strict=True):
                answers[index] = answer
        return platform, here, answers

    def _lost(self, case: Case, why: str) -> None:
        """A case that is asked again is told of: that it was lost is a fact of its own."""
        place = f"{case.table}.txt:{case.line} {case.request}"
        text = f"{place}: it could not be conducted ({why}), and is asked again of another VM"
        self.timeline.note("L0", text, shown=True)

    def _batch(self, cases: Sequence[Case]) -> tuple[Platform, list[Case], list[Seen | str]]:
        deadline = self.budget.deadline("the helper starts cases on L0", _START_SECONDS)
        with self._l0.start([self.facts.helper, "cases"], deadline) as remote:
            platform = platform_of(remote.read_object(deadline))
            here = [case for case in cases if case.holds(platform)]
            remote.send("\n".join(case.request for case in here))
            seconds = _START_SECONDS + _CASE_SECONDS * len(here)
            deadline = self.budget.deadline(f"{len(here)} cases on L0", seconds)
            return platform, here, [_answer(remote, deadline, platform.format) for _ in here]

    def _tell_unasked(self, cases: Sequence[Case], platform: Platform) -> None:
        """What the kernel or the CPU has not, and how many cases that costs."""
        lacking = Counter(lack for case in cases if (lack := case.unasked(platform)))
        for lack, count in lacking.items():
            self._unasked(cases[0].table, count, lack)

    def _unasked(self, table: str, count: int, lack: str) -> None:
        told = Unasked(test=self.test, table=table, lacks=lack, cases=count)
        text = f"{table}: {count} cases are not asked, they need {lack}"
        self.timeline.record(CasesUnasked(level="L0", text=text, unasked=told))

    def _conclude(self, case: Case, seen: Seen | str, platform: Platform, seconds: float) -> None:
        name = f"{case.table}:{case.line} {case.name} {label(case.vector, case.code)}"
        path = find(case.path)
        self.record(name, table_case(self.test, path, case, seen, platform.steps, seconds))


def _restored_too_early(case: Case, platform: Platform) -> bool:
    """Whether the case needs a restored L2 of a kernel that was only learning to restore it: VMX
    can since 4.19 and was fixed until SVM could, too. That is no promise of this contract."""
    return case.words.get("moved", "no") != "no" and not platform.steps.get("5.8")


def _on_path(table: Table, contract: str, path: str) -> list[Case]:
    cases = table.under(contract)
    if not cases:
        raise BenchError(f"the table {table.name} says nothing of the {contract} contract")
    chosen = [case for case in cases if path in (ALL, case.path)]
    if not chosen:
        there = ", ".join(dict.fromkeys(case.path for case in cases))
        raise NotHere(
            f"the table {table.name} has no case by {path}, only by {there}",
            f"leave --path out, or ask for one of these: {there}",
        )
    return chosen


def _about_another(table: Table, platform: Platform) -> NotHere:
    wanted = ", ".join(sorted({case.where for case in table.cases} - {"any"}))
    if not wanted:
        eras = ", ".join(sorted({case.era for case in table.cases}))
        return NotHere(
            f"the table {table.name} is about kernels of the era {eras} alone", "use such a kernel"
        )
    return NotHere(
        f"the table {table.name} is about {wanted.upper()} alone, this host has "
        f"{platform.format.upper()}",
        f"ask a host with {wanted.upper()}",
    )


def platform_of(head: Mapping[str, Any]) -> Platform:
    """What the helper's first line says of the host and its kernel."""
    caps = head["caps"]
    return Platform(
        format=head["format"],
        soft_exceptions=head["soft_exceptions"],
        steps=eras.shown(caps),
        sync_events=bool(caps["KVM_CAP_SYNC_REGS"] & _KVM_SYNC_X86_EVENTS),
        nested_state=caps["KVM_CAP_NESTED_STATE"] > 0,
        checks_codes=None if head["any_error_code"] is None else not head["any_error_code"],
        injectable=vendors.named(head["format"]).injectable(tcg=head["tcg"], cet=head["cet"]),
    )


def _answer(remote: Remote, deadline: Deadline, format_: str) -> Seen | str:
    """The lines up to `done`: the helper's answer, or why there is none."""
    answer: Mapping[str, object] = {}
    why = ""
    while True:
        line = remote.read_line(deadline)
        try:
            told = json.loads(line)
        except ValueError:
            why = why or f"the helper said {line!r}"
            continue
        if told["type"] == "done":
            if not why and answer:
                return Seen.from_answer(answer, format_)
            return why or "the helper said nothing"
        if told["type"] == "case":
            answer = told
        else:
            why = f"{told['what']} ({told['name']})"
