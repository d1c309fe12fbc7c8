# SPDX-License-Identifier: MIT
"""A lab host: a machine that was there before, with its running kernel; `local` or `ssh://`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path

from l2gate.foundation.deadline import Deadline
from l2gate.hosts.checks import require
from l2gate.hosts.host import GuestFiles, Host, HostContext, Program
from l2gate.hosts.lab.access import JOBS, Access, Lab, open_lab, restore
from l2gate.hosts.lab.prerequisites import host_checks
from l2gate.hosts.lab.supervisor import Supervisor
from l2gate.transport.connection import Connection, Remote
from l2gate.transport.console import Console, ConsolePump
from l2gate.vendors import vendors


class LabHost(Host):
    """L0 is a machine with its running kernel."""

    emulator = ""

    def __init__(self, access: Access, context: HostContext) -> None:
        self.spec, self._access, self._context = access.name, access, context
        self.settings, self.timeline = context.settings, context.timeline
        self._console = Console("L0", context.logs / "l0-console.log")
        self._lab: Lab | None = None
        self._supervisor: Supervisor | None = None
        self._kmsg: Remote | None = None
        self._taint = 0
        self._files: GuestFiles | None = None
        self._job = uuid.uuid4().hex[:12]

    @property
    def lab(self) -> Lab:
        assert self._lab is not None
        return self._lab

    @property
    def connection(self) -> Connection:
        return self.lab.connection

    @property
    def console(self) -> Console:
        return self._console

    @property
    def folder(self) -> str:
        return f"{JOBS}/{self._job}"

    @property
    def guest_files(self) -> GuestFiles:
        assert self._files is not None
        return self._files

    def boot(self) -> None:
        """Make it ours for the job: lock, module, prerequisites, files.

        Raises MissingPrerequisite with doctor's words where the suite cannot run.
        """
        images = self._context.images
        self._lab = open_lab(self._access, images.helper, self.settings)
        self.helper, self.budget = self.lab.helper, self.lab.budget
        self._put_back_what_others_left()
        self._take()
        if self.settings.modules == "nested" and self._can_nest():
            self._say(self.lab.script.nest(self.budget.deadline("loading KVM nested", 30)))
        survey = self.lab.survey(self.settings)
        require(host_checks(survey))
        assert survey.qemu is not None
        self._taint = int(survey.probe["tainted"] or 0)
        self._listen()
        self._bring(survey.qemu.words)

    def start_program(self, line: str, deadline: Deadline, log: Path) -> Program:
        assert self._supervisor is not None
        return self._supervisor.start(line, deadline)

    def complaint(self) -> str | None:
        """What the kernel said, or that it is tainted by more than before."""
        if said := super().complaint():
            return said
        deadline = self.budget.deadline("reading L0's taint", 10)
        done = self.connection.run("cat /proc/sys/kernel/tainted", deadline, check=False)
        now = int(done.stdout.strip() or 0) if done.status == 0 else self._taint
        if now & ~self._taint:
            return (
                f"the kernel is tainted by {now & ~self._taint:#x} more than before "
                "(Documentation/admin-guide/tainted-kernels.rst)"
            )
        return None

    def close(self) -> None:
        lab, self._lab = self._lab, None
        if lab is None:
            return
        try:
            if self._kmsg:
                self._kmsg.close()
            if self._supervisor:
                self._supervisor.close(self.budget.deadline("the supervisor ends", 30))
        finally:
            lab.close()

    def _can_nest(self) -> bool:
        """Without virtualization there is no module to load: the checks say so better."""
        return vendors.of_flags(self.lab.probe()["flags"]) is not None

    def _say(self, text: str) -> None:
        if text:
            self.timeline.note("L0", text, shown=True)

    def _put_back_what_others_left(self) -> None:
        """A note is there while a job has the module changed: wait for it, or do its work."""
        if not self.lab.script.noted(self.budget.deadline("looking for a note on L0", 10)):
            return
        self._say(restore(self.lab, self.settings, self._waiting))

    def _take(self) -> None:
        exclusive = self.settings.modules == "nested"
        log = self._context.logs / "l1-qemu.log"
        self._supervisor = self.lab.keep(
            self._job, self.settings, exclusive=exclusive, say=self._waiting, log=log
        )
        deadline = self.budget.deadline("signing the job's folder", 10)
        self.connection.run(f"echo {self._supervisor.pid} >{self.folder}/supervisor", deadline)

    def _waiting(self, holder: str) -> None:
        self._say(f"waiting up to {self.settings.wait:g} s for the host: {holder} has it")

    def _listen(self) -> None:
        """From now on what the kernel says goes into the console's log."""
        deadline = self.budget.deadline("reading L0's kernel messages", 10)
        done = self.connection.run([self.helper, "kmsg", "--last"], deadline)
        last = json.loads(done.stdout)["last"]
        argv = [self.helper, "kmsg", "--follow", "--after", str(last)]
        self._kmsg = self.connection.start(argv, deadline)
        self._kmsg.channel.settimeout(None)
        ConsolePump(self._kmsg.channel.recv, self._console.log)

    def _bring(self, qemu: Sequence[str]) -> None:
        images = self._context.images
        deadline = self.budget.deadline("bringing L1's files to L0", 60)
        disk = images.userland if self.settings.l2 == "linux" else images.lean
        with self.timeline.step("L0", "L1's files are brought to L0", "upload"):
            self._files = GuestFiles(
                qemu=tuple(qemu),
                bios=self.lab.store(images.bios, deadline),
                disk=self.lab.store(disk, deadline),
                kernel=self.lab.store(images.l1_kernel, deadline),
                initrd=self.lab.store(images.l1_initrd, deadline),
            )
