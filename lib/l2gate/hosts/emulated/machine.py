# SPDX-License-Identifier: MIT
"""Emulated hosts: an emulator boots the kernel under test; from then on it is an SSH host."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from l2gate.foundation import cache, suite
from l2gate.foundation.deadline import Budget, Deadline
from l2gate.foundation.errors import BenchError, KernelSpecError
from l2gate.hosts import templates
from l2gate.hosts.host import GuestFiles, HostContext, PersistentCapable, Program, TemplateCapable
from l2gate.hosts.persistent import born_at
from l2gate.hosts.templates import Template
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
_KEEP_SECONDS = 20
_RANDOM_BYTES = 256
#: L0's own word that nobody is connected to it any more.
_LEFT_ALONE = "l2gate: left alone"
#: L1's QEMU in a session of its own, which no connection ends. Its stderr is a FIFO that it alone
#: holds open: whoever reads that sees the end of QEMU.
_STAY = (
    "rm -f {words}; mkfifo {words} && exec 3<>{words} && "
    "{{ setsid sh -c {line} </dev/null >/dev/null 2>&3 3>&- & }} && "
    "echo $$ >{words}.reader; exec cat <{words} >&2 3>&-"
)
#: The last reader is blocked where no broken connection reaches it.
_FOLLOW = (
    "exec 3<>{words}; kill $(cat {words}.reader); "
    "echo $$ >{words}.reader; exec cat <{words} >&2 3>&-"
)


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


class Process(Protocol):
    """What is used of subprocess.Popen: an emulator that is no child of this process has it too."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def kill(self) -> None: ...


class EmulatedHost(PersistentCapable, TemplateCapable):
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
        self._process: Process | None = None
        self._connection: SshConnection | None = None
        self._endpoint: Endpoint | None = None
        #: A template that nobody else can find.
        self._kept: Template | None = None

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
        self._connect(port, key_file, server.public_line, deadline)
        self.connection.put(self._images.helper, HELPER, deadline, mode="700")

    def _connect(self, port: int, key_file: Path, host_key: str, deadline: Deadline) -> None:
        self._endpoint = Endpoint("L0", "127.0.0.1", port, "root", str(key_file), host_key)
        self._connection = SshConnection.to_level(self._endpoint, deadline)

    # --- templates --------------------------------------------------------------------------------

    @property
    def template_key(self) -> str:
        parts = (self.spec, self.emulator, self.command_line, self.kernel.key)
        files = (self._images.helper,)
        return cache.digest(*parts, str(self.image), suite.digest(), *files)

    @abstractmethod
    def save(self, folder: Path, deadline: Deadline) -> int:
        """Put what `restore` needs into ``folder``, and end the machine. Nobody is connected.
        Returns the process that stays for it, or 0."""

    @abstractmethod
    def restore(self, folder: Path, deadline: Deadline) -> None:
        """Start a process from it, so that `ssh_port` can tell the port, with the console log going
        on from what it holds already."""

    def keep(self, about: dict[str, Any]) -> Template:
        assert self.template is not None and self._endpoint is not None
        deadline = self.budget.deadline("L0 is kept as a template", _KEEP_SECONDS)
        # Its own word: one from a template was kept before, and its console has said that once.
        word = f"{_LEFT_ALONE} {os.urandom(4).hex()}"
        alone = f"while netstat -tn | grep -q ':22 .*ESTABLISHED'; do :; done; echo {word}"
        line = f"setsid sh -c {shlex.quote(f'{alone} >/dev/console')} </dev/null >/dev/null 2>&1 &"
        self.connection.run(line, deadline)
        self.connection.close()
        self._console.wait_for(word, deadline, self._why_dead)
        folder, self.template = self.template, None
        parked = self.save(folder, deadline)
        self._kept = Template(
            folder=folder, key=self.template_key, kind=self.spec, kernel=self.kernel.spec,
            booted=templates.now(), host_key=self._endpoint.host_key, boot_id=templates.boot_id(),
            about=about, parked=parked, born=born_at(parked) if parked else "",
        )  # fmt: skip
        shutil.copy(self._endpoint.key_file, self._kept.client_key)
        shutil.copy(self.seed, folder / self.seed.name)
        shutil.copy(self._console.log, self._kept.console)
        return self._kept

    def stays(self) -> None:
        self._kept = None

    def resume(self, template: Template) -> None:
        deadline = self.budget.deadline("L0 goes on from its template", _KEEP_SECONDS)
        shutil.copy(template.console, self._console.log)
        shutil.copy(template.folder / self.seed.name, self.seed)
        self.restore(template.folder, deadline)
        port = self.ssh_port(deadline)
        self._connect(port, template.client_key, template.host_key, deadline)
        self._take_keys_of_its_own(deadline)
        self.template_booted = template.booted

    def _take_keys_of_its_own(self, deadline: Deadline) -> None:
        """From then on the template's key opens this machine no more, its random numbers are its
        own, and its clock goes right: it has stood while the machine was kept."""
        assert self._endpoint is not None
        client, key_file = KeyPair.generate(), self.private / "key"
        key_file.unlink(missing_ok=True)
        client.write_openssh(key_file)
        keys = f"{self.folder}/authorized_keys"
        line = (
            f'umask 077; read -r key && echo "$key" >{keys} && cat >/dev/urandom && '
            f"date -s @{time.time():.0f} >/dev/null"
        )
        told = client.public_line.encode() + b"\n" + os.urandom(_RANDOM_BYTES)
        self.connection.run(line, deadline, stdin=told)
        self._endpoint = replace(self._endpoint, key_file=str(key_file))

    def start_program(self, line: str, deadline: Deadline, log: Path) -> Program:
        script = _STAY.format(words=self._words, line=shlex.quote(line))
        return self.connection.start(["sh", "-c", script], deadline, log)

    def follow_program(self, deadline: Deadline, log: Path) -> Program:
        script = _FOLLOW.format(words=self._words)
        return self.connection.start(["sh", "-c", script], deadline, log)

    @property
    def _words(self) -> str:
        return f"{self.folder}/program.words"

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
        self.kernel = kernel

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
        self._power_off()
        kept, self._kept = self._kept, None
        if kept:
            templates.end(kept)

    def _power_off(self) -> None:
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
