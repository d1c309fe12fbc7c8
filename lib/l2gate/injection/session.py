# SPDX-License-Identifier: MIT
"""A test's connections to a bench with an L1: an own L2 and QEMU's vCPU, to be stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from l2gate.contract.active import unproven
from l2gate.contract.choice import Choice, words_on_qemu
from l2gate.contract.outcome import ExceptionRequest, VcpuState
from l2gate.foundation.errors import L2gateError, NotProven
from l2gate.guests.fingerprint import Fingerprint
from l2gate.guests.l2 import L2Guest, L2State, start_l2
from l2gate.guests.restart import Restart, status
from l2gate.guests.victim import Victim
from l2gate.injection.evidence import Evidence
from l2gate.injection.injector import Injector
from l2gate.transport.kept import KeptPrograms
from l2gate.transport.qmp import Qmp

V = TypeVar("V", bound=Victim)

_FREEZE_SECONDS = 20
#: What a test leaves behind that was ended between a stop and the thaw.
_BROKEN_OFF = ("paused", "debug")
#: States that a VM leaves only by a reset (QEMU: runstate_needs_reset).
_STOPPED_FOR_GOOD = ("internal-error", "shutdown")


def asks(choice: Choice, path: str, request: ExceptionRequest, repeat: int, level: str) -> bool:
    """Whether ``choice`` asks for that case, or for one that it is the control of."""
    vector, code, injected = request.vector, request.error_code, request.injected
    return choice.asks(words_on_qemu(path, vector, code, injected, repeat, level))


@dataclass(frozen=True)
class StoppedVcpu:
    """The vCPU with a level on it, and by what that is known."""

    state: VcpuState
    fingerprint: Fingerprint


class Session(Evidence):
    """A test's connections to the bench, and an L2: its own, or that of an earlier test which has
    left it as it was. The vCPU is left running at its end."""

    def _connect(self) -> None:
        facts = self.facts
        self._l0 = self._connection("L0")
        self._l1 = self._connection("L1")
        self._kept_on = {"L0": KeptPrograms(self._l0), "L1": KeptPrograms(self._l1)}
        self.injector = Injector(
            self._kept_on["L0"],
            facts.helper,
            facts.qemu_pid,
            facts.monitor,
            self.budget,
            by=facts.proof,
        )
        self._stack.callback(self.injector.close)
        self.monitor: Qmp = self.injector
        now = status(self.monitor, self.budget)
        if now in _BROKEN_OFF:
            self.note(f"a test that was broken off has left L1 {now}: it goes on")
            self.injector.go_on()
        if now in _STOPPED_FOR_GOOD:
            with self.timeline.step("L1", "L1, which QEMU has stopped, starts anew", "restart"):
                Restart(self.monitor, facts.console("L1"), self.budget).now()
        with self.timeline.step("L2", f"the {facts.l2} L2 beats", "l2"):
            self.l2: L2Guest = self._find_l2()
            self._stack.callback(self.l2.close)

    def _find_l2(self) -> L2Guest:
        """That of an earlier test, if it goes on and nothing has hit it, or a new one."""
        facts, kept = self.facts, self._kept_on["L1"]
        while True:  # a Linux L2 is found by its socket in L1
            l2 = start_l2(facts.l2, self._l1, kept, facts.l1_helper, self.budget)
            try:
                state = l2.advance()
            except L2gateError as error:
                if not kept.continued:
                    l2.close()
                    raise
                state = L2State(False, 0, (), str(error))
            self._heartbeat = state.heartbeat
            if not kept.continued:
                return l2
            if state.alive and not state.hits:
                self.note(f"the L2 of an earlier test goes on: {state.heartbeat} beats, no hit")
                return l2
            self.note(f"the L2 of an earlier test is not as it was ({state.why}): a new one")
            l2.close()

    def _give_back(self) -> None:
        """Leave L2 and the helper on L0 to the next test; they must be as they were."""
        for connection in self._kept_on.values():
            connection.give_back()

    def asks(self, request: ExceptionRequest, repeat: int, level: str) -> bool:
        """Whether that case was asked for, or is the control of one that was."""
        return asks(self.choice, self.path, request, repeat, level)

    def note(self, text: str) -> None:
        """Say something on the timeline that a reader of the report should know."""
        self.timeline.note("L1", text)

    def _process_in_l1(self, kind: type[V]) -> V:
        """A process in L1 that turns exceptions into signals; ended with the session."""
        victim = kind(self._l1, self.facts.l1_helper, self.budget)
        self._stack.callback(victim.close)
        return victim

    def _stop_in_l2(self) -> StoppedVcpu:
        """Stop the vCPU with L2 on it, to be let go by the injector. Raises NotProven."""
        return self._catch("L2", self.l2.fingerprint, self.l2.advance)

    def _stop_in_l1(self, victim: Victim) -> StoppedVcpu:
        """Stop the vCPU with ``victim`` on it, to be let go by the injector. Raises NotProven."""
        return self._catch("L1", victim.fingerprint, victim.advance)

    def _catch(
        self, level: str, fingerprint: Fingerprint, let_run: Callable[[], object]
    ) -> StoppedVcpu:
        deadline = self.budget.deadline(f"the vCPU is caught in {level}", _FREEZE_SECONDS)
        tries = 0
        while True:
            state = self.injector.stop()
            # Kernels before 5.9 look for signals only after they have taken the next interrupt, so
            # that a vCPU that is stopped nearly always has one on its way.
            if level == "L1" and state.in_flight == "interrupt":
                state = self.injector.requeue()
            why = unproven(level, state, fingerprint)
            if why is None:
                return StoppedVcpu(state, fingerprint)
            self.injector.go_on()
            if deadline.expired:
                raise NotProven(
                    f"{level} was not caught on the vCPU within {deadline.seconds:.0f} s: {why}",
                    f"see whether {level} makes progress; consoles are in the job's results",
                )
            tries += 1
            # Stopped again at once, a slow L1 would never get so far as to go back to L2; and when
            # it has just answered, it is often still busy with that, not with L2. So both in turn:
            # an answer of its own, and some of QEMU's, in which L1 has no part.
            if tries % 3 == 0:
                let_run()
            for _ in range(tries % 3):
                status(self.monitor, self.budget)
