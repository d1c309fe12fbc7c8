# SPDX-License-Identifier: MIT
"""Path `vcpu-events`: userspace writes struct kvm_vcpu_events and calls KVM_SET_VCPU_EVENTS.

On QEMU's vCPU the helper makes the ioctl while QEMU has the vCPU stopped: freeze it with a level on
it, inject, thaw, see who is alive. On the helper's own VM a table does (lib/helper/inject.c). The
check of commit 28d06353 is in this ioctl (x86.c, kvm_vcpu_ioctl_x86_set_vcpu_events).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from l2gate.contract.judge import Judgement, Verdict
from l2gate.contract.outcome import ExceptionRequest, InjectionOutcome, Liveness
from l2gate.contract.paths import HELPER, QEMU, InjectionPath, Way
from l2gate.contract.vcpu_judge import Promise, vcpu_case
from l2gate.contract.vectors import label
from l2gate.foundation.errors import BenchError, DeadlineExpired
from l2gate.guests.fingerprint import Fingerprint
from l2gate.guests.victim import Victim
from l2gate.injection.fault_injection import kill_half_way
from l2gate.injection.injector import Order
from l2gate.injection.session import Session, StoppedVcpu
from l2gate.records.descriptions import Delivery
from l2gate.records.events import SignalAwaited

PATH = InjectionPath(
    "vcpu-events",
    "errno, the vCPU's state before and after, the signal that a process of L1 takes",
    (Way((HELPER, QEMU), "KVM_SET_VCPU_EVENTS", True),),
    own_struct=True,
)


class FrozenVcpu:
    """The vCPU stopped with one level proven to be on it. What a test says here is done one after
    another, just before the thaw, and judged after it; nothing is done for a case that was not
    asked for (`--case`)."""

    def __init__(self, session: VcpuEvents, level: str, fingerprint: Fingerprint) -> None:
        self._session, self.level, self.fingerprint = session, level, fingerprint
        self._wanted: list[tuple[Order, Promise]] = []
        self.said: list[tuple[InjectionOutcome, Promise]] = []

    def must_refuse(
        self, vector: int, error_code: int | None = None, *, errno: str = "EINVAL", times: int = 1
    ) -> None:
        """KVM must refuse that exception with ``errno``, each of so many times; nothing of the
        vCPU has changed then, and after the thaw L1 and L2 go on, hit by nothing."""
        self._try(ExceptionRequest(vector, error_code), Promise(errno), times, undo=True)

    def must_accept(
        self, vector: int, error_code: int | None = None, *, delivered: bool = False
    ) -> None:
        """KVM must accept that exception, and after the thaw L1 and L2 go on. It is taken back
        before the vCPU runs, unless it is to be ``delivered``."""
        self._try(ExceptionRequest(vector, error_code), Promise(None), 1, undo=not delivered)

    def must_accept_nothing(self, vector: int) -> None:
        """KVM must accept the same struct with injected=0, which asks for no exception; after the
        thaw L1 and L2 go on, hit by nothing."""
        self._try(ExceptionRequest(vector, injected=False), Promise(None), 1, undo=True)

    def must_outlive_its_injector(self, times: int) -> None:
        """The helper is killed (SIGKILL) in the middle of its ioctls, so many times: QEMU's vCPU
        thread must be where it was, to the last register that /proc shows."""
        self.conduct(thaw=False)
        self._session.kill_helper(times)

    def conduct(self, *, thaw: bool) -> None:
        """Do what was said so far; with ``thaw`` the vCPU runs then."""
        orders = [order for order, _ in self._wanted]
        promises = [promise for _, promise in self._wanted]
        self._wanted.clear()
        outcomes = self._session.injector.conduct(orders, go_on=thaw)
        self.said += zip(outcomes, promises, strict=True)

    def _try(self, request: ExceptionRequest, promise: Promise, times: int, undo: bool) -> None:
        if self._session.asks(request, times, self.level):
            self._wanted.append((Order(request, times, undo), promise))


class WatchedProcess(Victim):
    """A process of L1 that shows an exception delivered to L1 as the signal that it becomes."""

    _session: VcpuEvents

    def must_receive(self, signal: str, *, of: int) -> None:
        """The exception with vector ``of``, accepted just before, must reach it as ``signal``."""
        self._session.expect_signal(self, of, signal)

    def may_miss(self, vector: int, why: str) -> None:
        """Nothing is said of whether that exception reaches it, and ``why`` not."""
        self._session.note(why)
        self._session.deliver(vector, None, None)


class VcpuEvents(Session):
    """A test's way to freeze QEMU's vCPU and to inject past QEMU."""

    path = PATH.name

    def _connect(self) -> None:
        self._latest: list[Judgement] = []
        self._untouched = True
        super()._connect()

    @contextmanager
    def around(self) -> Iterator[None]:
        yield
        if self._untouched:
            self._give_back()

    def victim(self) -> WatchedProcess:
        """A process in L1 that turns exceptions into signals; ended with the session."""
        victim = self._process_in_l1(WatchedProcess)
        victim._session = self
        return victim

    @property
    def breakpoints_arrive(self) -> bool:
        """Whether KVM can deliver a #BP anywhere: not on SVM without NRIPS."""
        return self.facts.soft_exceptions

    @contextmanager
    def freeze_l2(self) -> Iterator[FrozenVcpu]:
        """Stop the vCPU with L2 on it; afterwards thaw, look who is alive, and judge.

        Raises NotProven if L2 is not caught on the vCPU within the deadline.
        """
        with self._frozen("L2", self._stop_in_l2) as frozen:
            yield frozen

    @contextmanager
    def freeze_l1(self, victim: Victim) -> Iterator[FrozenVcpu]:
        """Stop the vCPU with ``victim``, a user process of L1, on it."""
        with self._frozen("L1", lambda: self._stop_in_l1(victim)) as frozen:
            yield frozen

    def kill_helper(self, times: int) -> None:
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
        told = Delivery(test=self.test, vector=vector, wanted=wanted, seen=seen)
        text = f"{label(vector, None)} reached L1 as {seen or 'nothing'}"
        self.timeline.record(SignalAwaited(level="L1", text=text, delivery=told))

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

    @contextmanager
    def _frozen(self, level: str, stop: Callable[[], StoppedVcpu]) -> Iterator[FrozenVcpu]:
        start = time.monotonic()
        frozen = FrozenVcpu(self, level, stop().fingerprint)
        try:
            yield frozen
        except BaseException:
            self.injector.go_on()
            raise
        frozen.conduct(thaw=True)
        liveness = self._liveness()
        each = (time.monotonic() - start) / max(1, len(frozen.said))
        self._latest = [self._conclude(frozen, *said, liveness, each) for said in frozen.said]

    def _liveness(self) -> Liveness:
        """L1 and L2 after the thaw; one question shows both, for L2's answers come through L1."""
        before = self._heartbeat
        try:
            state = self.l2.advance()
        except (DeadlineExpired, BenchError) as error:
            self._untouched = False
            self.check_consoles()
            return Liveness(False, False, (before, before), (), str(error))
        self._heartbeat = state.heartbeat
        self._untouched &= state.alive and not state.hits
        if state.hits:
            self.l2.clear()
        return Liveness(True, state.alive, (before, state.heartbeat), state.hits, state.why)

    def _conclude(
        self,
        frozen: FrozenVcpu,
        outcome: InjectionOutcome,
        promise: Promise,
        liveness: Liveness,
        seconds: float,
    ) -> Judgement:
        case = vcpu_case(
            self.test, PATH, outcome, promise, frozen.level, frozen.fingerprint, liveness, seconds
        )
        return self.record(label(case.vector, case.error_code), case)
