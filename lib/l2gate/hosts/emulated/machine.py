# SPDX-License-Identifier: MIT
"""Emulated hosts: an emulator boots the kernel under test; from then on it is an SSH host."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from l2gate.foundation import cache
from l2gate.foundation.deadline import Budget, Deadline
from l2gate.foundation.errors import BenchError, KernelSpecError
from l2gate.hosts.host import GuestFiles, HostContext, PersistentCapable
from l2gate.images import initramfs, userland
from l2gate.images.helper import HELPER
from l2gate.images.userland import BUILT_IN, LINUX
from l2gate.kernels.kernel import KernelUnderTest, closure, unconfigured, untold
from l2gate.transport.console import Console
from l2gate.transport.keys import KeyPair, write_seed
from l2gate.transport.ssh import Endpoint, SshConnection
from l2gate.vendors.vendor import Vendor
from l2gate.vendors.vendors import MODULES, VENDORS

#: What every emulated machine needs of its kernel: PIIX IDE disks, an e1000, the image's format.
#: Both emulators offer exactly these, so that one image serves both.
L0_MODULES = ("ata_piix", "sd_mod", "e1000", "squashfs")

#: All that must be there, of the vendors' modules one.
_NEEDED = (*L0_MODULES, "kvm", *MODULES)

#: Where sysfs shows that they are there, as modules or built in; a file system it does not show.
_SHOWN = (
    "ata_piix /sys/bus/pci/drivers/ata_piix",
    "sd_mod /sys/bus/scsi/drivers/sd",
    "e1000 /sys/bus/pci/drivers/e1000",
    "kvm /sys/module/kvm",
)
#: What init-ram.sh says of a kernel that cannot go on.
_COMPLAINT = re.compile(r"l2gate: (?!ready\b)(.+)")

_INITRD_RECIPE = "6"

#: Nominal seconds of a power-on on real hardware; budgets scale it.
_BOOT_SECONDS = 20
_EXCHANGE_SECONDS = 10


def fitness(kernel: KernelUnderTest) -> str:
    """What can be said of a kernel before it is booted. Raises KernelSpecError if it lacks what an
    emulated machine needs."""
    if lacks := unconfigured(kernel):
        raise KernelSpecError(
            f"kernel {kernel.release} is built without {lacks}",
            "an emulated machine needs them all; images/kernels/eras/small.config has them",
        )
    closure(kernel, _NEEDED)
    if unknown := untold(kernel, _NEEDED):
        return f"whether it has built in {', '.join(unknown)} cannot be told before it is booted"
    return "it has what an emulated host needs"


def initrd(kernel: KernelUnderTest, busybox: Path) -> Path:
    """L0's initramfs, cached: the kernel's own modules, its KVM among them.

    Raises KernelSpecError if the kernel lacks one of them.
    """
    init = userland.recipe("userland/init-ram.sh")

    def make(folder: Path) -> None:
        modules = [*userland.load_list(kernel, L0_MODULES), *userland.kvm_modules(kernel)]
        initramfs.pack(folder / "l0.initrd", busybox, init, userland.unique(modules), _SHOWN)

    key = cache.digest(_INITRD_RECIPE, kernel.key, busybox, init)
    return cache.make("l0-initrd", key, make) / "l0.initrd"


class EmulatedHost(PersistentCapable):
    """What both emulators share: keys, seed disk, console log, readiness, the end."""

    #: How much slower than hardware it is, for the deadlines.
    slowness: ClassVar[float]
    command_line: ClassVar[str] = f"{LINUX} {BUILT_IN}"

    helper = HELPER
    keeps_time = False

    def __init__(self, spec: str, kernel: KernelUnderTest, context: HostContext) -> None:
        self.spec = spec
        self.settings, self.kernel, self._images = context.settings, kernel, context.images
        self.image, self.initrd = context.images.userland, initrd(kernel, context.images.busybox)
        self.private, self.timeline = context.folder, context.timeline
        self.budget = Budget(self.slowness * context.settings.patience * slowness())
        self._console = Console("L0", context.logs / "l0-console.log")
        self.emulator_log = context.logs / "l0-emulator.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: SshConnection | None = None
        self._endpoint: Endpoint | None = None

    @abstractmethod
    def start(self) -> subprocess.Popen[bytes]:
        """Power on."""

    @abstractmethod
    def ssh_port(self, deadline: Deadline) -> int:
        """The loopback port that leads to L0's SSH server."""

    def boot(self) -> None:
        """Power on and wait until L0 takes SSH. Raises L2gateError; the caller closes."""
        client, server = KeyPair.generate(), KeyPair.generate()
        key_file = self.private / "key"
        client.write_openssh(key_file)
        write_seed(self.seed, "l0", server, client)
        deadline = self.budget.deadline("L0 boots and lets SSH in", _BOOT_SECONDS)
        self._process = self.start()
        port = self.ssh_port(deadline)
        try:
            self._console.wait_for("l2gate: ready", deadline, self._why_dead)
        except BenchError as error:
            raise self._with_complaint(error) from None
        self._endpoint = Endpoint(
            "L0", "127.0.0.1", port, "root", str(key_file), server.public_line
        )
        self._connection = SshConnection.to_level(self._endpoint, deadline)
        self.connection.put(self._images.helper, HELPER, deadline, mode="700")

    def exchange_kvm(self, kernel: KernelUnderTest) -> None:
        """Without a boot: kvm.ko and the vendor's module are all that a variant differs in."""
        if kernel.release != self.kernel.release:
            raise BenchError(
                f"KVM of {kernel.release} cannot be loaded into {self.kernel.release}",
                "boot a host with that kernel",
            )
        deadline = self.budget.deadline("L0 exchanges its KVM modules", _EXCHANGE_SECONDS)
        vendor = self._loaded(deadline)
        modules = {m.name: m for m in userland.kvm_modules(kernel)}
        chosen = [modules["kvm.ko"], modules[vendor.module_file]]
        loads = []
        for module in chosen:
            draft = self.private / f"exchange-{module.name}"
            draft.write_bytes(initramfs.unsigned(module.content))
            target = f"{self.folder}/{module.name}"
            self.connection.put(draft, target, deadline)
            loads.append(f"insmod {target} {module.parameters} && rm {target}")
        # A VM whose process has just ended goes in its own time.
        users = f"cat /sys/module/{vendor.module}/refcnt"
        deadline.poll(lambda: self.connection.run(users, deadline).stdout.strip() == "0")
        unload = f"rmmod {vendor.module} && rmmod kvm"
        self.connection.run(" && ".join([unload, *loads]), deadline)

    def _loaded(self, deadline: Deadline) -> Vendor:
        """Whose module of KVM L0 has loaded. Raises BenchError if it has none."""
        there = self.connection.run("ls /sys/module", deadline).stdout.split()
        for vendor in VENDORS:
            if vendor.module in there:
                return vendor
        raise BenchError(f"L0 has loaded none of {', '.join(MODULES)}", "see L0's console")

    def wait(self) -> None:
        """Until the emulator ends."""
        if self._process:
            self._process.wait()

    @property
    def seed(self) -> Path:
        return self.private / "l0-seed.tar"

    def _with_complaint(self, error: BenchError) -> BenchError:
        """``error`` with what L0's own first steps have said of the kernel, if they did: they end
        the machine where it lacks something."""
        found = [line.strip() for line in _COMPLAINT.findall(self._console.text())]
        if not found or self._console.crash():
            return error
        said = " / ".join(dict.fromkeys(found))
        if self._why_dead() is None:
            said = f"{said}; {error.cause}"
        return BenchError(
            f"L0 did not finish booting {self.kernel.spec}: {said}",
            "build the kernel with what is missing, or put its modules beside it (see the README "
            f"for what an emulated host needs); the whole console: {self._console.log}",
        )

    def _why_dead(self) -> str | None:
        if self._process is None or self._process.poll() is None:
            return None
        words = " / ".join(self._last_words())
        return f"the emulator ended with {self._process.returncode} {words}".strip()

    def _log_lines(self) -> list[str]:
        log = self.emulator_log
        return log.read_text(errors="replace").strip().splitlines() if log.exists() else []

    def _last_words(self) -> list[str]:
        return self._log_lines()[-5:]

    @property
    def endpoint(self) -> Endpoint:
        """How to reach it, for others as well."""
        assert self._endpoint is not None
        return self._endpoint

    @property
    def connection(self) -> SshConnection:
        assert self._connection is not None
        return self._connection

    @property
    def console(self) -> Console:
        return self._console

    @property
    def folder(self) -> str:
        return "/run/l2gate"

    @property
    def guest_files(self) -> GuestFiles:
        return GuestFiles(
            qemu=(userland.QEMU,),
            bios=userland.BIOS,
            disk="/dev/l2gate-image",
            kernel=userland.L1_KERNEL,
            initrd=userland.L1_INITRD,
        )

    def close(self) -> None:
        """Power off: nothing in an emulated host outlives the job, so it is simply ended."""
        if self._connection:
            self._connection.close()
            self._connection = None
        process, self._process = self._process, None
        if process and process.poll() is None:
            process.kill()  # Bochs would answer SIGTERM with a question
            process.wait()


def slowness() -> float:
    """How much slower this machine is than the one the nominal seconds were taken on.

    Measured by a fixed piece of work; a busy machine counts as a slow one.
    """
    start = time.perf_counter()
    total = 0
    for number in range(1_000_000):
        total += number * number
    return max(1.0, (time.perf_counter() - start) / 0.08)


def program(name: str) -> str | None:
    return shutil.which(name)
