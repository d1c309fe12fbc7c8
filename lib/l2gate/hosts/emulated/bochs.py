# SPDX-License-Identifier: MIT
"""`emulated-intel`: Bochs emulates an Intel machine with VMX, EPT and VMCS shadowing."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError
from l2gate.foundation.settings import Settings
from l2gate.hosts.emulated import ramboot
from l2gate.hosts.emulated.bochsprogram import (
    IPS,
    MODEL,
    Bochs,
    Terminal,
    common,
    panics,
    quoted,
    start,
)
from l2gate.hosts.emulated.kind import TEMPLATE_OPTIONS, EmulatedKind
from l2gate.hosts.emulated.machine import EmulatedHost
from l2gate.hosts.emulated.parked import PARKED, Forked, Link, Parked
from l2gate.vendors.vmx import Vmx

_MEGABYTES = 1536
_SECTORS_PER_CYLINDER = 16 * 63
#: Nominal seconds in which a copy of a machine is made.
_PARK_SECONDS = 2


class BochsHost(EmulatedHost):
    """Bochs: one emulated Intel CPU, PIIX IDE, e1000 behind slirp; the kernel is in RAM."""

    slowness = 12.0
    #: The CPU model says 3.5 GHz: each second of a wait would last 3.5 G instructions.
    #: INVPCID for one address leaves global pages be, as it may (SDM 4.10.4.1); kernels before 4.15
    #: flush their own with it, and find old bytes where they have just patched themselves.
    command_line = f"{EmulatedHost.command_line} tsc_early_khz={IPS // 1000} noinvpcid"
    _terminal: Terminal | None = None
    _link: Link | None = None
    _port = 0

    @property
    def emulator(self) -> str:
        return Bochs.find(self.settings).version()

    def start(self) -> subprocess.Popen[bytes]:
        bochs = Bochs.find(self.settings)
        config = self.private / "bochsrc"
        config.write_text(self._config(bochs))
        self._terminal, self._link = Terminal(), Link()
        return start(bochs, config, self._terminal, self._link)

    def park(self, folder: Path, idle: float) -> Parked:
        """Leave a parked copy of this machine, as it is now, in ``folder``, which is made; it ends
        after ``idle`` seconds without use (0: never). This machine runs on, and its connections
        with it; in the copy they are closed. Raises BenchError."""
        if self._link is None or self._why_dead():
            raise BenchError("L0 does not run: it cannot be parked", "boot it first")
        deadline = self.budget.deadline("L0 leaves a parked copy", _PARK_SECONDS)
        return self._link.park(self._console.log, self.emulator_log, folder, idle, deadline)

    def go_on_from(self, parked: Parked) -> Forked:
        """Become a machine that goes on from where ``parked`` was, in place of `start`: with a port
        (`ssh_port`), a console log that begins with what was said before, and an emulator log of
        its own. What lies in L0, the keys too, is what was there. Raises BenchError."""
        deadline = self.budget.deadline("a parked L0 goes on", _PARK_SECONDS)
        forked = parked.fork(self._console.log, self.emulator_log, deadline)
        self._link, self._port = forked.link, forked.port
        return forked

    def save(self, folder: Path, deadline: Deadline) -> int:
        parked = self.park(folder / PARKED, 60 * self.settings.warm_minutes)
        self._power_off()
        return parked.pid

    def restore(self, folder: Path, deadline: Deadline) -> None:
        parked = Parked.find(folder / PARKED, deadline)
        if parked is None:
            raise BenchError("the parked machine has ended", "see the setting warm_minutes")
        self._process = self.go_on_from(parked)

    def _config(self, bochs: Bochs) -> str:
        memory = self.private / "l0-ram"
        ramboot.write(
            memory,
            self.kernel.vmlinuz,
            self.kernel.unpacked,
            self.initrd,
            self.command_line,
            _MEGABYTES,
        )
        network = self.private / "slirp.conf"
        self._port = _free_port()
        forward = f"hostfwd = tcp:127.0.0.1:{self._port}-:22"
        network.write_text(f"# slirp config\nrestricted = 1\n{forward}\n")
        lines = [
            *common(bochs, self.emulator_log, self._console.log),
            f"memory: host={_MEGABYTES}, guest={_MEGABYTES}, block_size={ramboot.BLOCK >> 10}",
            f"optramimage1: file={quoted(memory)}, address=0",
            f"cpu: model={MODEL}, ips={IPS}",
            "pci: enabled=1, chipset=i440fx, slot1=e1000",
            f"e1000: enabled=1, mac=52:54:00:12:34:56, ethmod=slirp, script={quoted(network)}",
            "boot: disk",
        ]
        # Both on one channel: Linux takes its time to look at each.
        lines.append("ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14")
        for place, file in (("master", self.image), ("slave", self.seed)):
            link = quoted(self._disk(place, file))
            lines.append(f"ata0-{place}: type=disk, mode=flat, path={link}")
        return "\n".join(lines) + "\n"

    def _disk(self, name: str, file: Path) -> Path:
        """A link of the bench's own: Bochs puts a lock beside each disk. A small one is filled up
        to the whole cylinder that Bochs counts in."""
        cylinder = _SECTORS_PER_CYLINDER * 512
        if file.stat().st_size < cylinder:
            os.truncate(file, cylinder)
        link = self.private / f"l0-{name}.disk"
        link.symlink_to(file)
        return link

    def ssh_port(self, deadline: Deadline) -> int:
        assert self._process is not None
        pid = self._process.pid
        # Bochs makes its devices one after another, and then the kernel begins to speak.
        deadline.poll(lambda: listens(pid, self._port) or self._console.text() or self._why_dead())
        # It goes on without the port if another program was quicker to take it.
        if not self._why_dead() and not listens(pid, self._port):
            raise BenchError(
                f"another program has taken the port {self._port} from Bochs", "run it again"
            )
        return self._port

    def _last_words(self) -> list[str]:
        return panics(self.emulator_log) or super()._last_words()

    def _power_off(self) -> None:
        super()._power_off()
        terminal, self._terminal = self._terminal, None
        if terminal:
            terminal.close()
        link, self._link = self._link, None
        if link:
            link.close()


def _free_port() -> int:
    """A loopback port that nobody has: Bochs cannot ask the kernel for one itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listens(pid: int, port: int) -> bool:
    """Whether the process ``pid`` listens on that loopback port (proc(5): net/tcp)."""
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return False
    rows = [line.split() for line in table]
    inodes = {row[9] for row in rows if row[1] == f"0100007F:{port:04X}" and row[3] == "0A"}
    return any(f"socket:[{inode}]" in links for inode in inodes)


def emulator(settings: Settings) -> str:
    """Which Bochs would be used. Raises MissingPrerequisite where there is none that can be."""
    return Bochs.find(settings).version()


KIND = EmulatedKind(
    name="emulated-intel",
    what="Bochs emulates an Intel machine with VMX: needs no virtualization hardware",
    vendor=Vmx(),
    options=TEMPLATE_OPTIONS | {"bochs", "warm_minutes"},
    seconds=120.0,
    host=BochsHost,
    emulator=emulator,
)
