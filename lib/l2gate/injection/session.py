# SPDX-License-Identifier: MIT
"""One test's way through the levels: freeze, inject, thaw, see who is alive, keep the evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from l2gate.contract.choice import words_of
from l2gate.contract.judge import Judgement, Liveness, Verdict, expected_errno, judge
from l2gate.foundation.errors import BenchError, DeadlineExpired, L2gateError, NotProven
from l2gate.foundation.events import Event
from l2gate.guests.fingerprint import Fingerprint
from l2gate.guests.l2 import L2Guest, start_l2
from l2gate.guests.restart import Restart, status
from l2gate.guests.victim import Victim
from l2gate.injection.evidence import Evidence
from l2gate.injection.fault_injection import kill_half_way
from l2gate.injection.injector import Injector
from l2gate.injection.request import ExceptionRequest, InjectionOutcome, VcpuState
from l2gate.injection.vectors import label
from l2gate.transport.console import Console
from l2gate.transport.qmp import Monitor

_FREEZE_SECONDS = 20
_QMP_SECONDS = 5
#: What a test leaves behind that was ended between a stop and the thaw.
_BROKEN_OFF = ("paused", "debug")
#: States that a VM leaves only by a reset (QEMU: runstate_needs_reset).
_STOPPED_FOR_GOOD = ("internal-error", "shutdown")


class Frozen:
    """The vCPU stopped with one level proven to be on it."""

    def __init__(self, session: Session, level: str, unproven: Callable[[VcpuState], str | None]):
        self._session, self.level, self._unproven = session, level, unproven
        self.outcomes: list[InjectionOutcome] = []

    def inject(
        self,
        vector: int,
        error_code: int | None = None,
        *,
        injected: bool = True,
        repeat: int = 1,
        undo: bool = True,
    ) -> None:
        """KVM_SET_VCPU_EVENTS on the frozen vCPU; judged after the thaw. Nothing is done for a
        case that was not asked for."""
        request = ExceptionRequest(vector, error_code, injected)
        if not self._session.asks(request, repeat, self.level):
            return
        outcome = self._session.injector.set_events(request, repeat=repeat, undo=undo)
        self.outcomes.append(outcome)

    def unproven(self, outcome: InjectionOutcome) -> str | None:
        """Why the level was not certainly active at that very ioctl, or None."""
        return self._unproven(outcome.before)


class Session(Evidence):
    """A test's connections to the bench, and its own L2. The vCPU is left running at its end."""

    path = "vcpu-events"

    def _connect(self) -> None:
        self._latest: list[Judgement] = []
        facts, deadline = self.facts, self.budget.deadline("connecting to L0 and L1", 20)
        self._l0 = self._connection("L0")
        self._l1 = self._connection("L1")
        self.monitor = self._stack.enter_context(
            Monitor.over(self._l0, facts.helper, facts.monitor, deadline)
        )
        self.injector = Injector(
            self._l0, facts.helper, facts.qemu_pid, self.budget, by=facts.proof
        )
        self._stack.callback(self.injector.close)
        now = status(self.monitor, self.budget)
        if now in _BROKEN_OFF:
            self.note(f"a test that was broken off has left L1 {now}: it goes on")
            self._qmp("cont")
        if now in _STOPPED_FOR_GOOD:
            with self.timeline.step("L1", "L1, which QEMU has stopped, starts anew", "restart"):
                console = Console("L1", Path(facts.consoles["L1"]))
                Restart(self.monitor, console, self.budget).now()
        with self.timeline.step("L2", f"L1 starts the {facts.l2} L2", "l2"):
            self.l2: L2Guest = start_l2(facts.l2, self._l1, facts.l1_helper, self.budget)
            self._stack.callback(self.l2.close)
            self._heartbeat = self.l2.advance().heartbeat

    def victim(self) -> Victim:
        """A process in L1 that turns exceptions into signals; ended with the session."""
        victim = Victim(self._l1, self.facts.l1_helper, self.budget)
        self._stack.callback(victim.close)
        return victim

    def asks(self, request: ExceptionRequest, repeat: int, level: str, path: str = "") -> bool:
        """Whether that case was asked for, or is the control of one that was."""
        told = {
            "path": path or self.path, "vector": request.vector, "error_code": request.error_code,
            "injected": request.injected, "repeat": repeat, "active_level": level,
        }  # fmt: skip
        return self.choice.asks(words_of(told))

    def note(self, text: str) -> None:
        """Say something on the timeline that a reader of the report should know."""
        self.timeline.note("L1", text)

    def kill_helper_half_way(self, times: int) -> None:
        """SIGKILL for the helper in the middle of its work; the vCPU must be frozen.

        Raises HelperError if QEMU is not afterwards as it was.
        """
        deadline = self.budget.deadline("QEMU's thread is as it was", 30)
        facts = self.facts
        kill_half_way(self._l0, facts.helper, facts.qemu_pid, times, deadline)

    def deliver(self, vector: int, wanted: str | None, seen: str | None) -> None:
        """Record what became of an exception that KVM accepted while L1 was active."""
        if not self._latest:  # it was not asked for
            return
        data = {"test": self.test, "vector": vector, "wanted": wanted, "seen": seen}
        text = f"{label(vector, None)} reached L1 as {seen or 'nothing'}"
        self.timeline.record(Event("L1", "delivery", text, data=data))

    def expect_signal(self, victim: Victim, vector: int, signal: str) -> None:
        """Judge whether the accepted exception reached ``victim`` as ``signal``."""
        if not self._latest or self._latest[-1].verdict is not Verdict.PASS:
            return
        seen = victim.wait_signal()
        self.deliver(vector, signal, seen.signal if seen else None)
        if seen is not None and (seen.signal, seen.vector) == (signal, vector):
            self.note(f"{label(vector, None)} reached a process of L1 as {signal}")
            return
        said = f"took {seen.signal} (vector {seen.vector})" if seen else "took no signal"
        reason = f"accepted, but the process in L1 {said} instead of {signal}"
        self.judgements.append((label(vector, None), Judgement(Verdict.FAIL, reason)))

    def stop_in_l2(self) -> None:
        """Stop the vCPU with L2 on it, to be let go by QMP. Raises NotProven."""
        self._catch("L2", partial(_not_l2, fingerprint=self.l2.fingerprint), self.l2.advance)

    def stop_in_l1(self, victim: Victim) -> None:
        """Stop the vCPU with ``victim`` on it, to be let go by QMP. Raises NotProven."""
        self._catch("L1", partial(_not_l1, fingerprint=victim.fingerprint), victim.advance)

    @contextmanager
    def freeze_l2(self) -> Iterator[Frozen]:
        """Stop the vCPU with L2 on it; afterwards thaw, look who is alive, and judge.

        Raises NotProven if L2 is not caught on the vCPU within the deadline.
        """
        unproven = partial(_not_l2, fingerprint=self.l2.fingerprint)
        with self._frozen("L2", unproven, self.l2.advance) as frozen:
            yield frozen

    @contextmanager
    def freeze_l1(self, victim: Victim) -> Iterator[Frozen]:
        """Stop the vCPU with ``victim``, a user process of L1, on it."""
        with self._frozen(
            "L1", partial(_not_l1, fingerprint=victim.fingerprint), victim.advance
        ) as frozen:
            yield frozen

    @contextmanager
    def _frozen(
        self,
        level: str,
        unproven: Callable[[VcpuState], str | None],
        let_run: Callable[[], object],
    ) -> Iterator[Frozen]:
        start = time.monotonic()
        self._catch(level, unproven, let_run)
        frozen = Frozen(self, level, unproven)
        try:
            yield frozen
        finally:
            self._qmp("cont")
        liveness = self._liveness(frozen)
        each = (time.monotonic() - start) / max(1, len(frozen.outcomes))
        self._latest = [
            self._conclude(frozen, outcome, liveness, each) for outcome in frozen.outcomes
        ]

    def _catch(
        self,
        level: str,
        unproven: Callable[[VcpuState], str | None],
        let_run: Callable[[], object],
    ) -> None:
        deadline = self.budget.deadline(f"the vCPU is caught in {level}", _FREEZE_SECONDS)
        while True:
            self._qmp("stop")
            state = self.injector.state()
            # Kernels before 5.9 look for signals only after they have taken the next interrupt, so
            # that a vCPU that is stopped nearly always has one on its way.
            if level == "L1" and state.in_flight == "interrupt":
                state = self.injector.requeue()
            why = unproven(state)
            if why is None:
                return
            self._qmp("cont")
            if deadline.expired:
                raise NotProven(
                    f"{level} was not caught on the vCPU within {deadline.seconds:.0f} s: {why}",
                    f"see whether {level} makes progress; consoles are in the job's results",
                )
            # Stopped again at once, a slow L1 would never get so far as to go back to L2.
            let_run()

    def _qmp(self, command: str) -> None:
        self.monitor.execute(command, self.budget.deadline(f"QMP {command}", _QMP_SECONDS))

    def _liveness(self, frozen: Frozen) -> Liveness:
        """L1 and L2 after the thaw; one question shows both, for L2's answers come through L1."""
        before = self._heartbeat
        try:
            state = self.l2.advance()
        except (DeadlineExpired, BenchError) as error:
            self.check_consoles()
            return Liveness(False, False, (before, before), (), str(error))
        self._heartbeat = state.heartbeat
        if state.hits:
            self.l2.clear()
        return Liveness(True, state.alive, (before, state.heartbeat), state.hits, state.why)

    def _conclude(
        self, frozen: Frozen, outcome: InjectionOutcome, liveness: Liveness, seconds: float
    ) -> Judgement:
        unproven = frozen.unproven(outcome)
        judgement = judge(outcome, frozen.level, unproven, liveness)
        request = outcome.request
        name = label(request.vector, request.error_code)
        self.judgements.append((name, judgement))
        wanted = expected_errno(request, frozen.level)
        data = {
            "test": self.test,
            "path": "vcpu-events",
            "vector": request.vector,
            "error_code": request.error_code,
            "injected": request.injected,
            "repeat": outcome.repeat,
            "active_level": frozen.level,
            "expected_errno": wanted,
            "seen_errno": outcome.errno,
            "verdict": judgement.verdict.value,
            "reason": judgement.reason,
            "seconds": round(seconds, 3),
            "proof": _proof(self, frozen, outcome, unproven, liveness),
        }
        self.timeline.record(Event("L0", "case", f"{name}: {judgement.reason}", data=data))
        return judgement


def _not_l2(state: VcpuState, fingerprint: Fingerprint) -> str | None:
    if state.has_nested_state and not state.guest_mode:
        return "KVM_GET_NESTED_STATE does not say guest mode"
    if not state.has_nested_state and fingerprint.cr3 is None:
        return "the kernel has no KVM_GET_NESTED_STATE and this L2 has no fingerprint"
    return fingerprint.missing(state)


def _not_l1(state: VcpuState, fingerprint: Fingerprint) -> str | None:
    if state.guest_mode:
        return "KVM_GET_NESTED_STATE says guest mode"
    if state.in_flight:  # what is injected beside it would cost L1 that event
        return f"an {state.in_flight} is on its way"
    return fingerprint.missing(state)


def _proof(
    session: Session,
    frozen: Frozen,
    outcome: InjectionOutcome,
    unproven: str | None,
    liveness: Liveness,
) -> dict[str, Any]:
    state = outcome.before
    how = []
    if state.has_nested_state:
        says = "says" if state.guest_mode else "denies"
        how.append(f"KVM_GET_NESTED_STATE ({state.nested_format}) {says} guest mode")
    if frozen.level == "L2" and session.l2.fingerprint.words:
        how.append(session.l2.fingerprint.words)
    return {
        "guest_mode": state.guest_mode,
        "how": unproven or ", ".join(how),
        "cr3": f"{state.cr3:#x}",
        "rip": f"{state.rip:#x}",
        "fingerprint": f"{state.r15:#x}",
        "unchanged": not outcome.changed,
        "changed": list(outcome.changed),
        "events_before": outcome.before.events,
        "events_after": outcome.events_after,
        "outcomes": [{"errno": errno, "count": count} for errno, count in outcome.outcomes],
        "liveness": {
            "l1": liveness.l1,
            "l2": liveness.l2,
            "l2_heartbeat": list(liveness.heartbeat),
            "hits": list(liveness.hits),
        },
    }


def failure(error: L2gateError) -> Judgement:
    """What an error means for the test that met it."""
    verdict = Verdict.INCONCLUSIVE if isinstance(error, NotProven) else Verdict.INFRA_ERROR
    return Judgement(verdict, str(error))
