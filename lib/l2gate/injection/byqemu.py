# SPDX-License-Identifier: MIT
"""What the paths by which QEMU itself injects have in common: make it do so while a level is
active, watch what becomes of it, let L1 be up for whoever comes next."""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from l2gate.bench.facts import BenchFacts
from l2gate.contract.choice import Choice
from l2gate.contract.outcome import ExceptionRequest, QemuOutcome
from l2gate.contract.paths import InjectionPath
from l2gate.contract.qemu_judge import EINVAL_WORDS, Era, Goal, QemuInjection, qemu_case
from l2gate.contract.vectors import label
from l2gate.foundation.errors import HelperError, MissingPrerequisite
from l2gate.guests.l2 import TinyL2
from l2gate.guests.restart import Restart, status
from l2gate.guests.victim import Victim
from l2gate.injection.evidence import none_chosen
from l2gate.injection.session import Session, StoppedVcpu, asks

#: What L1's Linux says when a machine check is its end (arch/x86/kernel/cpu/mce/core.c).
_MCE_WORDS = re.compile(r"Machine check|\[Hardware Error\]|machine check", re.IGNORECASE)
PANIC = re.compile(r"Kernel panic[^\n]*\n")
_SETTLE_SECONDS = 20
#: Heartbeats of L2 that show that it goes on.
BEATS = 20_000


@dataclass(frozen=True)
class QemuInjected:
    """An injection by QEMU, and what became of it."""

    at: StoppedVcpu
    outcome: QemuOutcome


class ByQemu(Session):
    """A session in which QEMU is made to inject by one path. What ends or stops L1 is followed by
    its restart, by this session if something is to follow in it, else by the next one."""

    #: The path that it injects by, and the vector that comes of it.
    described: ClassVar[InjectionPath]
    vector: ClassVar[int]

    @classmethod
    def demand(cls, facts: BenchFacts, test: str) -> None:
        if facts.l2 != "tiny":
            raise MissingPrerequisite("a Linux L2 does not tell what it is hit by", "use l2=tiny")
        vendor = facts.vendor
        since = vendor.survives_qemu_since
        if since and not facts.steps.get(since):
            raise MissingPrerequisite(
                f"on {vendor.name} of such a kernel L1 does not survive that QEMU writes its "
                f"registers back, as it does to inject ({vendor.without_that}); injections past "
                "QEMU and on the standalone VM were asked",
                f"use a kernel of {since} or later",
            )

    def _connect(self) -> None:
        super()._connect()
        self._console = self.facts.console("L1")
        self._began = time.monotonic()

    def must_reach(self, who: str, *, while_active: str) -> None:
        """Make QEMU inject while that level is active: ``who`` (L1 or L2) must get the exception,
        and nobody else."""
        self._judged(Goal(who), while_active)

    def must_be_refused(self, *, while_active: str) -> None:
        """Make QEMU inject while that level is active: KVM must refuse what QEMU brings, so that
        neither L1 nor L2 gets the exception, whatever QEMU does then."""
        self._judged(Goal(), while_active)

    @abstractmethod
    def _inject(self, level: str) -> QemuInjected:
        """Make QEMU inject while ``level`` is active, and see what becomes of it."""

    def _after(self, outcome: QemuOutcome) -> None:
        """What comes when that has been judged: L1 is up for whoever comes next."""

    def _judged(self, goal: Goal, level: str) -> None:
        self.only_if_asked(self.choice, self.test, level)
        injected = self._inject(level)
        at, facts = injected.at, self.facts
        did = QemuInjection(self.described, self.vector, level, at.state, at.fingerprint)
        era = Era(facts.contract.name, facts.vendor, facts.steps)
        seconds = time.monotonic() - self._began
        case = qemu_case(self.test, did, injected.outcome, goal, era, seconds)
        self.record(f"{self.path} {label(self.vector, None)}", case)
        self._began = time.monotonic()
        self._after(injected.outcome)

    @classmethod
    def only_if_asked(cls, choice: Choice, test: str, *levels: str) -> None:
        """Raises NotHere if the case with none of those levels active was asked for."""
        request = ExceptionRequest(cls.vector, None)
        if not any(asks(choice, cls.path, request, 1, level) for level in levels):
            raise none_chosen(f"{test} has", choice)

    # --- what the paths make use of ---------------------------------------------------------------

    @property
    def _tiny(self) -> TinyL2:
        assert isinstance(self.l2, TinyL2)
        return self.l2

    @contextmanager
    def _stopped_in(self, level: str, victim: Victim | None = None) -> Iterator[StoppedVcpu]:
        """The vCPU stopped with ``level`` on it; at the end it goes on."""
        if level == "L1":
            stopped = self._stop_in_l1(victim or self._process_in_l1(Victim))
        else:
            stopped = self._stop_in_l2()
        try:
            yield stopped
        finally:
            self.injector.go_on()

    def _watch(self, said: int) -> QemuOutcome:
        """Until the VM has stopped, L1 has died of it, or L2 has gone on. ``said``: so much has
        L1's console said before."""
        deadline = self.budget.deadline("what QEMU injected shows", _SETTLE_SECONDS)
        while True:
            now = status(self.monitor, self.budget)
            if now not in ("running", "paused", "debug"):
                state, words = self.injector.state(), self._qemu_words()
                return QemuOutcome(now, stopped_at=state, words=words)
            words = self._console.text()[said:]
            if PANIC.search(words):
                line = _MCE_WORDS.search(words)
                return QemuOutcome(
                    now, f"its kernel panicked of it ({line.group()})" if line else ""
                )
            try:
                if state_of_l2 := self._tiny.seen(0.3):
                    return QemuOutcome(now, l2_alive=state_of_l2.alive, hits=state_of_l2.hits)
            except HelperError:  # L1 may end it for what it was hit by
                return QemuOutcome(now)
            if deadline.expired:
                return QemuOutcome(now)

    def _qemu_words(self) -> str:
        """The last that QEMU has said on its stderr, which is kept beside L1's console."""
        log = self._console.log.with_name("l1-qemu.log")
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return " / ".join(line for line in lines if EINVAL_WORDS in line)[-300:]

    def _restart(self) -> Restart:
        return Restart(self.monitor, self._console, self.budget)

    def _said(self) -> int:
        """How much L1's console has said so far."""
        return len(self._console.text())

    def _count(self, name: str) -> int:
        """A row of L1's /proc/interrupts."""
        deadline = self.budget.deadline("L1's /proc/interrupts", 15)
        words = self._l1.run(["grep", f"{name}:", "/proc/interrupts"], deadline, check=False)
        return sum(int(word) for word in words.stdout.split()[1:] if word.isdigit())

    def _human(self, line: str) -> str:
        return self.monitor.human(line, self.budget.deadline(f"HMP {line.split()[0]}", 10))
