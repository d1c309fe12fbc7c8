# SPDX-License-Identifier: MIT
"""Exceptions that QEMU itself makes: a machine check by its monitor, a #BP that its gdb server
hands back, an NMI by QMP. QEMU brings the first two to KVM by KVM_SET_VCPU_EVENTS."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from l2gate.contract import eras
from l2gate.contract.judge import Judgement, Verdict
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import (
    BenchError,
    HelperError,
    L2gateError,
    MissingPrerequisite,
    NotProven,
)
from l2gate.foundation.events import Event
from l2gate.guests.l2 import L2State, TinyL2
from l2gate.guests.restart import Restart, status
from l2gate.guests.victim import Victim
from l2gate.injection.evidence import none_chosen
from l2gate.injection.request import ExceptionRequest, VcpuState
from l2gate.injection.session import Session
from l2gate.injection.vectors import BREAKPOINT, NMI, label
from l2gate.transport.console import Console
from l2gate.transport.gdb import Gdb

MACHINE_CHECK = 18
#: CPU 0, bank 9, an uncorrected memory error that software may take its time for: VAL, UC, EN,
#: MISCV, ADDRV, S; MCG_STATUS: MCIP, RIPV, LMCE_S (SDM volume 3, 16.9.3.1).
_MCE = "mce 0 9 0xbd000000000000c0 0xd 0x62000000 0x8c"
#: What L1's Linux says when a machine check is its end (arch/x86/kernel/cpu/mce/core.c).
_MCE_WORDS = re.compile(r"Machine check|\[Hardware Error\]|machine check", re.IGNORECASE)
_PANIC = re.compile(r"Kernel panic[^\n]*\n")
_SETTLE_SECONDS = 20
_BEATS = 20_000
#: So few that an L2 which KVM steps through makes them in a second.
_FEW_BEATS = 1_000
_CRAWL_SECONDS = 1
#: What QEMU says of an ioctl that was refused with EINVAL (strerror(3)).
_EINVAL = "Invalid argument"
#: KVM_SET_VCPU_EVENTS brings QEMU's machine check or, in 1 of some 30 times on emulated-amd, does
#: not (seen by ftrace in L0: nothing is pending at the KVM_RUN after it). So many are made, before
#: it counts that nobody had one.
_MOST_MCES = 3
#: INT3s of an L2 that may be lost before one arrives: there are fewer pages than that to map.
_MOST_LOST = 12


@dataclass(frozen=True)
class QemuOutcome:
    """What became of it: who had it, what QEMU's VM does, and whether L2 goes on."""

    status: str
    l1: str = ""
    l2: L2State | None = None
    stopped_at: VcpuState | None = None
    #: QEMU's own words, if it has said anything.
    words: str = ""

    @property
    def hits(self) -> tuple[dict[str, Any], ...]:
        return self.l2.hits if self.l2 else ()

    def had_by_somebody(self, vector: int) -> bool:
        """By L1, by L2, or by QEMU, which was refused and has stopped the VM or stands still."""
        alive = self.l2 is not None and self.l2.alive
        return bool(self.l1 or _hit(vector, self)) or self.status != "running" or not alive


class ThroughQemu(Session):
    """A session in which QEMU is made to inject. What ends or stops L1 is followed by its restart,
    by this session if something is to follow in it, else by the next one."""

    def _connect(self) -> None:
        if self.facts.l2 != "tiny":
            raise MissingPrerequisite("a Linux L2 does not tell what it is hit by", "use l2=tiny")
        vendor = self.facts.vendor
        since = vendor.survives_qemu_since
        if since and not self.facts.steps.get(since):
            raise MissingPrerequisite(
                f"on {vendor.name} of such a kernel L1 does not outlive that QEMU writes its "
                f"registers back, as it does to inject ({vendor.without_that}); injections past "
                "QEMU and on the helper's own VM were asked",
                f"a kernel of {since} or later",
            )
        super()._connect()
        self._console = Console("L1", Path(self.facts.consoles["L1"]))
        self._began = time.monotonic()

    @property
    def _tiny(self) -> TinyL2:
        assert isinstance(self.l2, TinyL2)
        return self.l2

    # --- the three ways ---------------------------------------------------------------------------

    def machine_check(self, level: str) -> None:
        """HMP `mce` while ``level`` is active."""
        self._only_if_asked("mce", MACHINE_CHECK, level)
        for _ in range(_MOST_MCES):
            restart = Restart(self.monitor, self._console, self.budget)
            state, outcome = self._one_machine_check(level)
            if outcome.had_by_somebody(MACHINE_CHECK):
                break
            self.note("QEMU's machine check was lost: L1 starts anew, and another one is made")
            restart.now()  # as long as it is in progress for QEMU, the next would be L1's reset
            self._begin_anew()
        self._conclude_outcome("mce", MACHINE_CHECK, level, state, outcome, wants_l1=True)
        self._after(outcome, restart)

    def _one_machine_check(self, level: str) -> tuple[VcpuState, QemuOutcome]:
        said = len(self._console.text())
        before = self._count("MCE")
        with self._stopped_in(level) as state:
            self._tiny.expect_beats(_BEATS)
            words = self._human(_MCE)
            if words.strip():
                raise BenchError(f"QEMU makes no machine check: {words.strip()}")
        outcome = self._watch(said)
        if not outcome.l1 and outcome.status == "running" and self._count("MCE") > before:
            outcome = replace(outcome, l1="its count of MCEs has grown")
        return state, outcome

    def breakpoint_nobody_owns(self) -> None:
        """An INT3 of a process in L1, then one of L2, while QEMU's gdb server has a breakpoint
        elsewhere. Raises MissingPrerequisite where the CPU does not leave a guest for an INT3."""
        self._only_if_asked("gdbstub", BREAKPOINT, "L1")
        if not self.facts.soft_exceptions:
            raise MissingPrerequisite(
                "on SVM without NRIPS KVM cannot hand an INT3 back (in 4.x an L2 that has one cut "
                "short stands still), and QEMU TCG does not leave a guest for one",
                "use a host with NRIPS, such as hardware, or one with VMX",
            )
        victim, said = self.victim(), len(self._console.text())
        self._l2_takes_its_own_int3()
        deadline = self.budget.deadline("QEMU's gdb server", 60)
        with self._gdb(deadline) as gdb:
            try:
                with self._stopped_in("L1", victim) as state:
                    gdb.plant(victim.spare, deadline)
                self._leaves_for_an_int3(gdb, victim, deadline)
                outcome = self._sigtrap(victim)
                self._conclude_outcome("gdbstub", BREAKPOINT, "L1", state, outcome, wants_l1=False)
                with self._stopped_in("L2", victim) as state:
                    pass
                self._tiny.trap(_BEATS)
                self._tiny.expect_beats(2 * _BEATS)
                outcome = self._watch(said)
                self._conclude_outcome("gdbstub", BREAKPOINT, "L2", state, outcome, wants_l1=False)
            finally:
                self._let_go(gdb, victim, deadline)

    def nmi(self, level: str) -> None:
        """QMP inject-nmi: L1's, whoever is active; never refused (KVM_NMI)."""
        self._only_if_asked("nmi", NMI, level)
        before, said = self._count("NMI"), len(self._console.text())
        restart = Restart(self.monitor, self._console, self.budget)
        with self._stopped_in(level) as state:
            self._tiny.expect_beats(_FEW_BEATS)
            deadline = self.budget.deadline("QMP inject-nmi", 5)
            self.monitor.execute("inject-nmi", deadline)
        outcome = self._watch(said)
        died = self._died(said)
        if died:  # the kernel under test has harmed it: an NMI is nothing to die of
            outcome = replace(outcome, l1="", status=f"running, where L1 has died of it: {died}")
        elif self._count("NMI") > before:
            outcome = replace(outcome, l1="its count of NMIs has grown")
        self._conclude_outcome("nmi", NMI, level, state, outcome, wants_l1=True)
        if died:
            restart.wait()
            self._begin_anew()
        else:
            restart.close()

    def _died(self, said: int) -> str:
        """How L1 has crashed since its console ``said`` so much; empty if it has not."""
        told = self._console.text()[said:]
        first = re.search(r"Oops: [^\n]*|Kernel panic[^\n]*", told)
        return first.group().strip() if first and _PANIC.search(told) else ""

    def leave_no_stepping(self) -> None:
        """L1 starts anew where the NMIs have left L2 crawling: KVM of 4.x steps over what holds an
        NMI back (svm.c, enable_nmi_window), and goes on to step in L2."""
        restart = Restart(self.monitor, self._console, self.budget)
        self._tiny.expect_beats(_BEATS)
        seen = self._tiny.seen(self.budget.deadline("L2 beats on", _CRAWL_SECONDS).seconds)
        if seen and seen.alive:
            restart.close()
            return
        self.note("L2 crawls after the NMIs: L1 starts anew")
        restart.now()

    def _only_if_asked(self, path: str, vector: int, level: str) -> None:
        if not self.asks(ExceptionRequest(vector, None), 1, level, path):
            raise none_chosen(f"{self.test} has", self.choice)

    # --- what becomes of it -----------------------------------------------------------------------

    def _l2_takes_its_own_int3(self) -> None:
        """The control: without gdb it is L2's alone. On QEMU TCG the first ones are lost, one for
        each page that their delivery finds unmapped."""
        for _ in range(_MOST_LOST):
            self._tiny.trap(_BEATS)
            self._tiny.expect_beats(2 * _BEATS)
            if _hit(BREAKPOINT, self._watch(len(self._console.text()))):
                self.l2.clear()
                return
        raise NotProven("an INT3 of L2 does not reach its own handler", "see L0's console")

    def _leaves_for_an_int3(self, gdb: Gdb, victim: Victim, deadline: Deadline) -> None:
        """A breakpoint that QEMU does own must stop the VM; the INT3 is still to come then."""
        with self._stopped_in("L1", victim):
            gdb.plant(victim.int3, deadline)
        victim.clear()
        victim.trap()
        victim.expect_signal()
        settle = self.budget.deadline("an INT3 that QEMU owns", 5)
        while status(self.monitor, self.budget) != "debug":
            if victim.seen(0.1) or settle.expired:
                raise MissingPrerequisite(
                    "this CPU does not leave a guest for an INT3 that is intercepted (QEMU TCG "
                    "does not), so QEMU's gdb server never has one to hand back",
                    "use another host: hardware does, and so does Bochs",
                )
        gdb.remove(victim.int3, deadline)
        self._qmp("cont")

    def _sigtrap(self, victim: Victim) -> QemuOutcome:
        seen = victim.seen(self.budget.deadline("a signal", 15).seconds)
        got = f"a process took {seen.signal}" if seen and seen.vector == BREAKPOINT else ""
        return QemuOutcome(status(self.monitor, self.budget), got, self.l2.advance())

    @contextmanager
    def _gdb(self, deadline: Deadline) -> Iterator[Gdb]:
        """QEMU's gdb server with us as its client, and the VM going on."""
        path = f"{self.facts.monitor}-gdb"
        said = self._human(f"gdbserver unix:{path},server=on,wait=off").strip()
        if "Could not open gdbserver" in said:  # QEMU 10 wants more of KVM than 4.x has
            words = " / ".join(said.splitlines())
            raise MissingPrerequisite(f"QEMU offers no gdb server here: {words}", "a later kernel")
        try:
            self._qmp("stop")
            with Gdb(self._l0, self.facts.helper, path, deadline) as gdb:
                self._qmp("cont")
                yield gdb
        finally:
            with suppress(L2gateError):
                self._human("gdbserver none")

    def _let_go(self, gdb: Gdb, victim: Victim, deadline: Deadline) -> None:
        """No breakpoint is left behind: it is taken out where it was put in, in the process."""
        if status(self.monitor, self.budget) == "running":
            with self._stopped_in("L1", victim):
                gdb.detach(deadline)
        else:
            gdb.detach(deadline)

    def _watch(self, said: int) -> QemuOutcome:
        """Until the VM has stopped, L1 has died of it, or L2 has gone on."""
        deadline = self.budget.deadline("what QEMU injected shows", _SETTLE_SECONDS)
        while True:
            now = status(self.monitor, self.budget)
            if now not in ("running", "paused", "debug"):
                return QemuOutcome(now, stopped_at=self.injector.state(), words=self._qemu_words())
            words = self._console.text()[said:]
            if _PANIC.search(words):
                line = _MCE_WORDS.search(words)
                return QemuOutcome(
                    now, f"its kernel panicked of it ({line.group()})" if line else ""
                )
            try:
                if state := self._tiny.seen(0.3):
                    return QemuOutcome(now, l2=state)
            except HelperError as error:  # L1 may end it for what it was hit by
                return QemuOutcome(now, l2=L2State(False, 0, (), str(error)))
            if deadline.expired:
                return QemuOutcome(now)

    def _qemu_words(self) -> str:
        """The last that QEMU has said on its stderr, which is kept beside L1's console."""
        log = self._console.log.with_name("l1-qemu.log")
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return " / ".join(line for line in lines if _EINVAL in line)[-300:]

    @contextmanager
    def _stopped_in(self, level: str, victim: Victim | None = None) -> Iterator[VcpuState]:
        """The vCPU stopped with ``level`` on it; at the end it goes on."""
        if level == "L1":
            self.stop_in_l1(victim or self.victim())
        else:
            self.stop_in_l2()
        try:
            yield self.injector.state()
        finally:
            self._qmp("cont")

    def _after(self, outcome: QemuOutcome, restart: Restart) -> None:
        """L1 is up for whoever comes next; one that QEMU has stopped is started by the next."""
        if outcome.status != "running":
            return
        if "panicked" in outcome.l1:
            restart.wait()
        else:
            restart.close()

    def _count(self, name: str) -> int:
        """A row of L1's /proc/interrupts."""
        deadline = self.budget.deadline("L1's /proc/interrupts", 15)
        words = self._l1.run(["grep", f"{name}:", "/proc/interrupts"], deadline, check=False)
        return sum(int(word) for word in words.stdout.split()[1:] if word.isdigit())

    def _human(self, line: str) -> str:
        return self.monitor.human(line, self.budget.deadline(f"HMP {line.split()[0]}", 10))

    # --- judging ----------------------------------------------------------------------------------

    def _conclude_outcome(
        self,
        path: str,
        vector: int,
        level: str,
        before: VcpuState,
        outcome: QemuOutcome,
        *,
        wants_l1: bool,
    ) -> None:
        refused = self.facts.contract.name == "refuse" and level == "L2" and vector != NMI
        judgement = (
            _refused(vector, outcome) if refused else _received(vector, level, outcome, wants_l1)
        )
        judgement, known, finding = self._by_era(judgement, vector, level, outcome)
        name = f"{path} {label(vector, None)}"
        self.judgements.append((name, judgement))
        who = "L1" if outcome.l1 else "L2" if _hit(vector, outcome) else "nobody"
        data = {
            "test": self.test, "path": path, "vector": vector, "error_code": None,
            "injected": True, "repeat": 1, "active_level": level,
            "expected_errno": "EINVAL" if refused and outcome.stopped_at else None,
            "seen_errno": "EINVAL" if _EINVAL in outcome.words else None,
            "who": who, "qemu": outcome.status, "qemu_says": outcome.words,
            "verdict": judgement.verdict.value, "reason": judgement.reason,
            "seconds": round(time.monotonic() - self._began, 3),
            "proof": self._shown(before, outcome),
            "deviations": known, "finding": finding,
        }  # fmt: skip
        self._began = time.monotonic()
        self.timeline.record(Event("L0", "case", f"{name}: {judgement.reason}", data=data))

    def _by_era(
        self, judgement: Judgement, vector: int, level: str, outcome: QemuOutcome
    ) -> tuple[Judgement, list[str], str]:
        """The judgement, what of it is known of the kernel's era, and what is a finding: neither
        NMIs nor, where they went past L1, exceptions that L1 intercepts were ever promised."""
        steps, vendor = self.facts.steps, self.facts.vendor
        since = vendor.asks_l1_since
        free = vector == NMI or (vendor.passed_l1_by and self.facts.contract.name == "payload")
        asked = level == "L2" or vector == NMI
        if judgement.verdict is not Verdict.FAIL or not (asked and free) or steps.get(since):
            return judgement, [], ""
        told = f"{judgement.reason} (not promised before {since}: {eras.brought(since)})"
        if vector == MACHINE_CHECK and _hit(vector, outcome):
            return Judgement(Verdict.PASS, f"as known: {told}"), [judgement.reason], ""
        return Judgement(Verdict.PASS, f"finding: {told}"), [], told

    def _shown(self, before: VcpuState, outcome: QemuOutcome) -> dict[str, Any]:
        says = "says" if before.guest_mode else "denies"
        at = outcome.stopped_at
        return {
            "guest_mode": before.guest_mode,
            "how": f"KVM_GET_NESTED_STATE ({before.nested_format}) {says} guest mode",
            "cr3": f"{before.cr3:#x}", "rip": f"{before.rip:#x}", "fingerprint": f"{before.r15:#x}",
            "unchanged": at is None or not at.in_flight, "changed": [],
            "events_after": at.events if at else None,
            "liveness": {"l1": outcome.status == "running",
                         "l2": bool(outcome.l2 and outcome.l2.alive), "hits": list(outcome.hits)},
        }  # fmt: skip


def _hit(vector: int, outcome: QemuOutcome) -> bool:
    return any(hit["vector"] == vector for hit in outcome.hits)


def _refused(vector: int, outcome: QemuOutcome) -> Judgement:
    """KVM must refuse what QEMU brings: it reaches neither L1 nor L2, whatever QEMU does then."""
    if _hit(vector, outcome):
        return Judgement(Verdict.FAIL, "accepted while L2 is active: L2 had it as its own")
    if outcome.l1:
        return Judgement(Verdict.FAIL, f"accepted while L2 is active: L1 had it: {outcome.l1}")
    if outcome.stopped_at:
        if in_flight := outcome.stopped_at.in_flight:
            return Judgement(Verdict.FAIL, f"QEMU has stopped, yet an {in_flight} is on its way")
        says = f", saying {outcome.words!r}" if outcome.words else ""
        return Judgement(
            Verdict.PASS, f"refused: QEMU stopped the VM ({outcome.status}){says}; nobody had it"
        )
    if outcome.l2 is None or not outcome.l2.alive:
        return Judgement(Verdict.PASS, "refused: nobody had it, and QEMU tries again and again")
    return Judgement(Verdict.PASS, "nobody had it: QEMU has gone on in silence, it is lost")


def _received(vector: int, level: str, outcome: QemuOutcome, wants_l1: bool) -> Judgement:
    """It must go to L1, or to L2 if that is whose it is."""
    to_l1 = wants_l1 or level == "L1"
    if to_l1 and outcome.l1 and not _hit(vector, outcome):
        return Judgement(Verdict.PASS, f"L1 had it: {outcome.l1}")
    if not to_l1 and _hit(vector, outcome):
        return Judgement(Verdict.PASS, "L2 had it, whose it is")
    got = "L1" if outcome.l1 else "L2" if _hit(vector, outcome) else "nobody"
    return Judgement(
        Verdict.FAIL, f"{got} had it (VM {outcome.status}), wanted: {'L1' if to_l1 else 'L2'}"
    )
