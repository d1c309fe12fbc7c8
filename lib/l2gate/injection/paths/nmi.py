# SPDX-License-Identifier: MIT
"""Path `nmi`: a non-maskable interrupt, which is no exception.

On the helper's own VM by KVM_NMI (lib/helper/inject.c), on QEMU's VM by QMP `inject-nmi`, for which
QEMU calls KVM_NMI. It is never refused, and it is L1's, whoever is active.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from l2gate.contract.outcome import QemuOutcome
from l2gate.contract.paths import HELPER, QEMU, InjectionPath, Way
from l2gate.contract.vectors import NMI
from l2gate.guests.restart import Restart
from l2gate.injection.byqemu import BEATS, PANIC, ByQemu, QemuInjected

PATH = InjectionPath(
    "nmi",
    "L1's count of NMIs, L1's VM-exit or handler, whether L1 outlives it",
    (
        Way((HELPER,), "KVM_NMI", False),
        Way((QEMU,), "QMP's inject-nmi: QEMU calls KVM_NMI", False),
    ),
)

#: So few that an L2 which KVM steps through makes them in a second.
_FEW_BEATS = 1_000
_CRAWL_SECONDS = 1


class Nmi(ByQemu):
    """QEMU makes an NMI."""

    described, path, vector = PATH, PATH.name, NMI

    @contextmanager
    def around(self) -> Iterator[None]:
        yield
        self._leave_no_stepping()

    def _inject(self, level: str) -> QemuInjected:
        before, said = self._count("NMI"), self._said()
        self._reset: Restart = self._restart()
        with self._stopped_in(level) as at:
            self._tiny.expect_beats(_FEW_BEATS)
            deadline = self.budget.deadline("QMP inject-nmi", 5)
            self.monitor.execute("inject-nmi", deadline)
        outcome = self._watch(said)
        self._died = self._crash(said)
        if self._died:  # the kernel under test has harmed it: an NMI is nothing to die of
            told = f"running, where L1 has died of it: {self._died}"
            outcome = replace(outcome, l1="", status=told)
        elif self._count("NMI") > before:
            outcome = replace(outcome, l1="its count of NMIs has grown")
        return QemuInjected(at, outcome)

    def _after(self, outcome: QemuOutcome) -> None:
        if self._died:
            self._reset.wait()
            self._begin_anew()
        else:
            self._reset.close()

    def _crash(self, said: int) -> str:
        """How L1 has crashed since its console ``said`` so much; empty if it has not."""
        told = self._console.text()[said:]
        first = re.search(r"Oops: [^\n]*|Kernel panic[^\n]*", told)
        return first.group().strip() if first and PANIC.search(told) else ""

    def _leave_no_stepping(self) -> None:
        """L1 starts anew where the NMIs have left L2 crawling: KVM of 4.x steps over what holds an
        NMI back (svm.c, enable_nmi_window), and goes on to step in L2."""
        restart = self._restart()
        self._tiny.expect_beats(BEATS)
        seen = self._tiny.seen(self.budget.deadline("L2 beats on", _CRAWL_SECONDS).seconds)
        if seen and seen.alive:
            restart.close()
            return
        self.note("L2 crawls after the NMIs: L1 starts anew")
        restart.now()
