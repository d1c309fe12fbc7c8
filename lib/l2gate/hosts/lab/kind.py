# SPDX-License-Identifier: MIT
"""What all lab hosts have in common as a kind: machines that were there before."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import L2gateError, MissingPrerequisite, UsageError
from l2gate.foundation.events import Timeline
from l2gate.foundation.settings import AUTO, Settings
from l2gate.hosts.checks import Check, failed
from l2gate.hosts.host import HostContext
from l2gate.hosts.kind import Kind
from l2gate.hosts.lab.access import Lab, open_lab
from l2gate.hosts.lab.labhost import LabHost
from l2gate.hosts.lab.prerequisites import host_checks
from l2gate.images import helper
from l2gate.kernels.kernel import KernelUnderTest
from l2gate.transport.connection import Connection


@dataclass(frozen=True)
class LabKind(Kind):
    """A kind says how it is reached; all else is the same."""

    @abstractmethod
    def connect(self, settings: Settings, deadline: Deadline) -> Connection:
        """Raises BenchError or UsageError."""

    @abstractmethod
    def check_access(self, settings: Settings) -> None:
        """Raises UsageError for settings by which it cannot be reached, as far as that can be said
        without asking it."""

    @abstractmethod
    def reached(self, lab: Lab) -> Check:
        """Whether the way to it does all that is needed."""

    def why_unreachable(self) -> str:
        """Why no try is worth it; empty if it is. `doctor` has said so among the programs."""
        return ""

    def check(self, settings: Settings) -> str:
        if settings.kernel != AUTO:
            raise UsageError(
                f"kernel = {settings.kernel} cannot be used on {self.name}: it runs its own kernel",
                "leave `kernel` out, boot that kernel there, and use --expect-kernel",
            )
        self.check_access(settings)
        return "its running kernel"

    def make(self, context: HostContext, kernel: KernelUnderTest | None) -> LabHost:
        return LabHost(self, context)

    def open(self, settings: Settings, for_what: str) -> Lab:
        self.check(settings)
        return open_lab(self, helper.build(Timeline()), settings)

    def checks(self, settings: Settings) -> Iterator[Check]:
        self.check(settings)
        if self.why_unreachable():
            return
        try:
            lab = self.open(settings, "doctor")
        except MissingPrerequisite as error:
            yield failed("host", "access", error)
            return
        except L2gateError as error:
            yield failed("host", "SSH", error)
            return
        try:
            yield self.reached(lab)
            yield from host_checks(lab.survey(settings))
            yield _note(lab)
        except L2gateError as error:
            yield failed("host", self.name, error)
        finally:
            lab.close()


def _note(lab: Lab) -> Check:
    noted = lab.script.noted(lab.budget.deadline("looking for a note on L0", 10))
    found = "changed by a job, and not put back yet" if noted else "as the machine has it"
    return Check("host", "module state", found, not noted, "l2gate restore --host H; the next job "
                 "does it as well", needed=False)  # fmt: skip
