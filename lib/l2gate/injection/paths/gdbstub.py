# SPDX-License-Identifier: MIT
"""Path `gdbstub`: a #BP that QEMU's gdb server does not own.

While gdb has a breakpoint somewhere, KVM leaves to QEMU for every INT3 of the guest. One that is
not gdb's QEMU hands back by KVM_SET_VCPU_EVENTS (QEMU, target/i386/kvm: kvm_handle_debug), which
the commit's check covers. On the helper's own VM the helper does what QEMU does
(lib/helper/inject.c).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from l2gate.bench.facts import BenchFacts
from l2gate.contract.choice import parse
from l2gate.contract.outcome import QemuOutcome
from l2gate.contract.paths import HELPER, QEMU, InjectionPath, Way
from l2gate.contract.vectors import BREAKPOINT
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import L2gateError, MissingPrerequisite, NotProven
from l2gate.guests.restart import status
from l2gate.guests.victim import Victim
from l2gate.injection.byqemu import BEATS, ByQemu, QemuInjected
from l2gate.transport.gdb import Gdb

PATH = InjectionPath(
    "gdbstub",
    "the signal that a process of L1 takes, L2's own #BP handler, what QEMU says and does",
    (Way((HELPER, QEMU), "QEMU's gdb server: QEMU calls KVM_SET_VCPU_EVENTS", True),),
)

#: INT3s of an L2 that may be lost before one arrives: there are fewer pages than that to map.
_MOST_LOST = 12


class GdbStub(ByQemu):
    """QEMU's gdb server has a breakpoint, and a level makes an INT3 elsewhere: with L1 active a
    process of it, with L2 active L2 itself. L1 must come first."""

    described, path, vector = PATH, PATH.name, BREAKPOINT

    @classmethod
    def demand(cls, facts: BenchFacts, test: str) -> None:
        """Raises MissingPrerequisite where the CPU does not leave a guest for an INT3."""
        super().demand(facts, test)
        cls.only_if_asked(parse(facts.case), test, "L1", "L2")
        if not facts.soft_exceptions:
            raise MissingPrerequisite(
                "on SVM without NRIPS KVM cannot hand an INT3 back (in 4.x an L2 that has one cut "
                "short stands still), and QEMU TCG does not leave a guest for one",
                "use a host with NRIPS, such as hardware, or one with VMX",
            )

    @contextmanager
    def around(self) -> Iterator[None]:
        self._process, self._before = self._process_in_l1(Victim), self._said()
        self._l2_takes_its_own_int3()
        self._limit = self.budget.deadline("QEMU's gdb server", 60)
        with self._server(self._limit) as self._gdb:
            try:
                yield
            finally:
                self._let_go(self._gdb, self._process, self._limit)

    def _inject(self, level: str) -> QemuInjected:
        return self._int3_of_l1() if level == "L1" else self._int3_of_l2()

    def _int3_of_l1(self) -> QemuInjected:
        gdb, process = self._gdb, self._process
        with self._stopped_in("L1", process) as at:
            gdb.plant(process.spare, self._limit)
        self._leaves_for_an_int3(gdb, process, self._limit)
        seen = process.seen(self.budget.deadline("a signal", 15).seconds)
        got = f"a process took {seen.signal}" if seen and seen.vector == BREAKPOINT else ""
        l2 = self.l2.advance()
        now = status(self.monitor, self.budget)
        return QemuInjected(at, QemuOutcome(now, got, l2_alive=l2.alive, hits=l2.hits))

    def _int3_of_l2(self) -> QemuInjected:
        with self._stopped_in("L2", self._process) as at:
            pass
        self._tiny.trap(BEATS)
        self._tiny.expect_beats(2 * BEATS)
        return QemuInjected(at, self._watch(self._before))

    def _l2_takes_its_own_int3(self) -> None:
        """The control: without gdb it is L2's alone. On QEMU TCG the first ones are lost, one for
        each page that their delivery finds unmapped."""
        for _ in range(_MOST_LOST):
            self._tiny.trap(BEATS)
            self._tiny.expect_beats(2 * BEATS)
            if self._watch(self._said()).hit(BREAKPOINT):
                self.l2.clear()
                return
        raise NotProven("an INT3 of L2 does not reach its own handler", "see L0's console")

    def _leaves_for_an_int3(self, gdb: Gdb, process: Victim, deadline: Deadline) -> None:
        """A breakpoint that QEMU does own must stop the VM; the INT3 is still to come then."""
        with self._stopped_in("L1", process):
            gdb.plant(process.int3, deadline)
        process.clear()
        process.trap()
        process.expect_signal()
        settle = self.budget.deadline("an INT3 that QEMU owns", 5)
        while status(self.monitor, self.budget) != "debug":
            if process.seen(0.1) or settle.expired:
                raise MissingPrerequisite(
                    "this CPU does not leave a guest for an INT3 that is intercepted (QEMU TCG "
                    "does not), so QEMU's gdb server never has one to hand back",
                    "use another host: hardware does, and so does Bochs",
                )
        gdb.remove(process.int3, deadline)
        self.injector.go_on()

    @contextmanager
    def _server(self, deadline: Deadline) -> Iterator[Gdb]:
        """QEMU's gdb server with us as its client, and the VM going on."""
        path = f"{self.facts.monitor}-gdb"
        said = self._human(f"gdbserver unix:{path},server=on,wait=off").strip()
        if "Could not open gdbserver" in said:  # QEMU 10 wants more of KVM than 4.x has
            words = " / ".join(said.splitlines())
            raise MissingPrerequisite(f"QEMU offers no gdb server here: {words}", "a later kernel")
        try:
            self.injector.stop()
            with Gdb(self._l0, self.facts.helper, path, deadline) as gdb:
                self.injector.go_on()
                yield gdb
        finally:
            with suppress(L2gateError):
                self._human("gdbserver none")

    def _let_go(self, gdb: Gdb, process: Victim, deadline: Deadline) -> None:
        """No breakpoint is left behind: it is taken out where it was put in, in the process."""
        if status(self.monitor, self.budget) == "running":
            with self._stopped_in("L1", process):
                gdb.detach(deadline)
        else:
            gdb.detach(deadline)
