# SPDX-License-Identifier: MIT
"""The bench: a booted host with L1 on it, up once per job and shared by the job's tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from l2gate.bench import l0 as l0_of
from l2gate.bench.facts import BenchFacts
from l2gate.bench.l0 import L0
from l2gate.contract import choice
from l2gate.foundation import debian
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, L2gateError
from l2gate.foundation.events import Timeline
from l2gate.foundation.settings import Settings
from l2gate.guests.l1vm import L1Vm
from l2gate.hosts import kinds
from l2gate.hosts.host import Host, HostContext
from l2gate.hosts.kind import Can
from l2gate.hosts.probe import probe
from l2gate.images import build
from l2gate.images.helper import HELPER
from l2gate.kernels.described import describe
from l2gate.kernels.kernel import KernelUnderTest
from l2gate.records.descriptions import KernelDescription
from l2gate.records.events import (
    ContractDecided,
    HostFound,
    KernelComplained,
    KernelFound,
    L1QemuFound,
)
from l2gate.transport.multiplexer import Multiplexer, Served
from l2gate.transport.returning import Returning
from l2gate.transport.ssh import Endpoint, SshConnection


def preflight(settings: Settings) -> None:
    """Refuse what cannot work before anything boots or builds.

    Raises UsageError for an unknown host, kernel spec or word of a case, MissingPrerequisite for
    what a make target brings.
    """
    choice.refuse_impossible(choice.parse(settings.case))
    kind = kinds.find(settings.host)
    kinds.refuse_nonsense(kind, settings)
    kind.check(settings)
    debian.find(build.GUEST_SUITE)


class Bench:
    """Host and L1, up. `down` ends both; it is idempotent and safe on a half-built bench."""

    def __init__(self, settings: Settings, folder: Path, logs: Path, timeline: Timeline) -> None:
        self.settings, self.folder, self.logs, self.timeline = settings, folder, logs, timeline
        self.kind = kinds.find(settings.host)
        self._host: Host | None = None
        self._vm: L1Vm | None = None
        self._l1: Returning | None = None
        self._multiplexer: Multiplexer | None = None
        self._facts: BenchFacts | None = None
        self._images: build.Images | None = None
        self._l1_count = 0

    @classmethod
    def up(
        cls, settings: Settings, folder: Path, logs: Path, timeline: Timeline, *, l1: bool = True
    ) -> Bench:
        """Boot host and L1 (without ``l1`` the host alone, for tests on the helper's own VM).

        Call it in the main thread. Raises L2gateError, with nothing left.
        """
        preflight(settings)
        shutil.rmtree(logs, ignore_errors=True)  # an earlier console would be read as this one's
        logs.mkdir(parents=True)
        bench = cls(settings, folder, logs, timeline)
        try:
            bench._boot_host()
            bench._begin(l1)
        except BaseException:
            bench.down()
            raise
        return bench

    def save(self, path: Path) -> None:
        assert self._facts is not None
        self._facts.write(path)

    def check(self) -> None:
        """Raises GuestCrash if a console tells of a crash."""
        if self._host:
            self._host.check_console()
        if self._vm:
            self._vm.console.check()

    def exchange(self, kernel: KernelUnderTest, *, l1: bool) -> None:
        """Load that kernel's KVM instead of the one that is there, on the host as it runs, and
        boot an L1 of its own if ``l1`` asks for one.

        Raises BenchError where the host cannot do that; then only a new boot helps.
        """
        assert self._host is not None
        self._end_l1()
        with self.timeline.step("L0", f"exchanging KVM for {kernel.spec}", "exchange"):
            self._host.exchange_kvm(kernel)
        self._told_kernel(describe(kernel))
        self._begin(l1)

    @property
    def alive(self) -> bool:
        """Whether L0 still answers."""
        deadline = Deadline("L0 answers", 10)
        try:
            return self._host is not None and not self._host.connection.run("true", deadline).status
        except L2gateError:
            return False

    @property
    def complaint(self) -> str | None:
        """What L0's kernel has said of a fault of its own since it was booted."""
        return self._host.complaint() if self._host else None

    def down(self) -> None:
        if self._host is None:
            return
        self._record_complaint(self._host)
        with self.timeline.step("controller", "ending L1 and L0", "teardown"):
            host = self._host
            try:
                self._end_l1()
            finally:
                self._host = None
                host.close()

    def _end_l1(self) -> None:
        vm, self._vm = self._vm, None
        l1, self._l1 = self._l1, None
        multiplexer, self._multiplexer = self._multiplexer, None
        if multiplexer:
            multiplexer.close()
        if l1:
            l1.close()
        if vm:
            vm.close()

    def _record_complaint(self, host: Host) -> None:
        """What the kernel under test has said of itself during the job: its end is not green."""
        if self._facts is None:
            return
        try:
            said = host.complaint()
        except L2gateError:
            return  # an L0 that is gone is reported by whoever needed it
        if said:
            text = f"the kernel under test complained during the job: {said}"
            self.timeline.record(KernelComplained(level="L0", text=text, said=said))

    def _boot_host(self) -> None:
        with self.timeline.step("controller", "kernel and images", "prepare"):
            kernel = self.kind.prepare_kernel(self.settings, self.timeline)
            self._images = build.images(self.timeline)
            context = HostContext(
                self.settings, self._images, self.folder, self.logs, self.timeline
            )
            host = self._host = self.kind.make(context, kernel)
        if kernel:
            self._told_kernel(describe(kernel))
        does = f"boots {kernel.release}" if kernel else "is made ready"
        with self.timeline.step("L0", f"{self.kind.name} {does}", "host"):
            host.boot()

    def _told_kernel(self, kernel: KernelDescription) -> None:
        self.timeline.record(KernelFound(level="L0", text=kernel.spec, kernel=kernel))

    def _begin(self, l1: bool) -> None:
        """Judge the kernel that is there, and make what a test needs to reach the bench."""
        host = self._host
        assert host is not None
        l0 = l0_of.examine(host, self.settings)
        self.timeline.record(HostFound(level="L0", text=host.spec, host=l0.described(host)))
        if not self.kind.boots:
            self._told_kernel(l0.running_kernel())
        contract = l0.contract
        self.timeline.record(ContractDecided(level="L0", text=contract.name, contract=contract))
        levels = {"L0": Served(host.connection, host.helper)}
        if l1:
            levels["L1"] = Served(self._boot_l1(host, l0), HELPER)
        socket = self.folder / "multiplexer"
        socket.unlink(missing_ok=True)
        self._multiplexer = Multiplexer(socket, levels)
        consoles = {"L0": str(host.console.log)}
        if self._vm:
            consoles["L1"] = str(self._vm.console.log)
        self._facts = BenchFacts(
            multiplexer=str(socket),
            monitor=self._vm.places.monitor if self._vm else "",
            qemu_pid=self._vm.pid if self._vm else 0,
            helper=host.helper,
            l1_helper=HELPER,
            consoles=consoles,
            contract=l0.contract,
            scale=host.budget.scale,
            l2=self.settings.l2,
            proof=self.settings.proof,
            path=self.settings.path,
            case=self.settings.case,
            owner=os.getpid(),
            soft_exceptions=l0.soft_exceptions,
            format=l0.vendor.format,
            steps=l0.steps,
        )

    def _l1_places(self) -> tuple[Path, Path]:
        """Where the keys and the logs of the next L1 go: its own, as a console is read whole."""
        self._l1_count += 1
        if self._l1_count == 1:
            return self.folder, self.logs
        places = self.folder / f"l1-{self._l1_count}", self.logs / f"l1-{self._l1_count}"
        for place in places:
            place.mkdir(mode=0o700)
        return places

    def _boot_l1(self, host: Host, l0: L0) -> Returning:
        assert self._images is not None
        helper = self._images.helper
        honest_since = l0.vendor.honest_msrs_since
        if Can.BE_SPENT in self.kind.can and honest_since and not l0.steps[honest_since]:
            deadline = host.budget.deadline("L0 ignores MSRs that it does not know", 10)
            host.connection.run("echo 1 >/sys/module/kvm/parameters/ignore_msrs", deadline)
        with self.timeline.step("L1", "QEMU on L0 boots the L1 VM", "l1"):
            folder, logs = self._l1_places()
            self._vm = L1Vm(host, folder, logs)
            endpoint = self._vm.boot()
            version = self._vm.version
            self.timeline.record(L1QemuFound(level="L0", text=version, version=version))
            self._l1 = Returning("L1", lambda: _equip_l1(host, l0, endpoint, helper))
            return self._l1


def _equip_l1(host: Host, l0: L0, endpoint: Endpoint, helper: Path) -> SshConnection:
    deadline = host.budget.deadline("L1 lets SSH in and takes the helper", 20)
    l1 = SshConnection.to_level(endpoint, deadline, via=host.connection)
    l1.put(helper, HELPER, deadline, mode="700")
    found = probe(l1, HELPER, "L1", host.budget)
    if found["dev_kvm_error"]:
        raise BenchError(
            f"L1 has no KVM ({found['dev_kvm_error']}): L0's nested KVM offers it no "
            f"{l0.vendor.format}",
            "see L1's console",
        )
    return l1
