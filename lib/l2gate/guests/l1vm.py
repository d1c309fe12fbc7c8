# SPDX-License-Identifier: MIT
"""The L1 VM: QEMU with KVM on L0, its monitor and its console on channels of their own."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2gate.foundation.errors import GuestCrash, L2gateError
from l2gate.hosts.host import GuestFiles, Host, Program
from l2gate.images.userland import LINUX
from l2gate.transport.connection import Connection, Remote
from l2gate.transport.console import Console, ConsolePump
from l2gate.transport.keys import KeyPair, write_seed
from l2gate.transport.qmp import Monitor, forwarded_port
from l2gate.transport.ssh import Endpoint

_BOOT_SECONDS = 20
#: noxsave: an emulated CPU's XSAVE sizes do not add up when KVM hands them on, and Linux warns.
_COMMAND_LINE = f"{LINUX} noxsave"


@dataclass(frozen=True)
class Places:
    """Where L1's sockets and files are on L0, all in the host's private folder."""

    folder: str

    @property
    def monitor(self) -> str:
        return f"{self.folder}/l1-qmp"

    @property
    def console(self) -> str:
        return f"{self.folder}/l1-console"

    @property
    def seed(self) -> str:
        return f"{self.folder}/l1-seed.tar"

    @property
    def pid(self) -> str:
        return f"{self.folder}/l1.pid"


def command(files: GuestFiles, places: Places) -> list[str]:
    """QEMU's command line: a microvm with one vCPU, so that L1 and L2 share it."""
    words = [*files.qemu, "-name", "l2gate-l1,debug-threads=on", "-nodefaults", "-no-user-config"]
    words += ["-display", "none", "-no-reboot", "-pidfile", places.pid]
    words += ["-M", "microvm,acpi=on,pcie=off,rtc=on,pic=off,pit=off,isa-serial=on"]
    words += ["-bios", files.bios]
    words += ["-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", "640"]
    words += ["-kernel", files.kernel, "-initrd", files.initrd, "-append", _COMMAND_LINE]
    for index, disk in enumerate((files.disk, places.seed)):
        words += ["-drive", f"file={disk},format=raw,if=none,id=d{index},readonly=on"]
        words += ["-device", f"virtio-blk-device,drive=d{index}"]
    words += ["-netdev", "user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"]
    words += ["-device", "virtio-net-device,netdev=n0"]
    words += ["-chardev", f"socket,id=monitor,path={places.monitor},server=on,wait=off"]
    words += ["-mon", "chardev=monitor,mode=control"]
    # wait=on: QEMU starts the VM only when somebody reads its console, so no word is lost.
    words += ["-chardev", f"socket,id=console,path={places.console},server=on,wait=on"]
    words += ["-serial", "chardev:console"]
    return words


def _version(told: dict[str, Any]) -> str:
    """QMP's query-version as one line (QEMU, qapi/control.json: VersionInfo)."""
    number = ".".join(str(told["qemu"][part]) for part in ("major", "minor", "micro"))
    return f"{number} ({told['package']})" if told["package"] else number


class L1Vm:
    """L1's QEMU, from power-on to its end."""

    def __init__(self, host: Host, folder: Path, logs: Path) -> None:
        self.host, self.helper = host, host.helper
        self.places = Places(host.folder)
        self.console = Console("L1", logs / "l1-console.log")
        self._folder, self._qemu_log = folder, logs / "l1-qemu.log"
        self._qemu: Program | None = None
        self._pump: ConsolePump | None = None
        self._bridge: Remote | None = None
        self.pid = 0
        #: Of L1's QEMU, once it has booted: `10.0.2 (Debian 1:10.0.2+ds-2)`.
        self.version = ""

    def boot(self) -> Endpoint:
        """Start QEMU, wait until L1 is up, and return the way to its SSH server.

        Raises GuestCrash if L1 or L0 panics or QEMU ends, DeadlineExpired otherwise.
        """
        connection, deadline = (
            self._connection,
            self.host.budget.deadline("L1 boots and lets SSH in", _BOOT_SECONDS),
        )
        client, server = KeyPair.generate(), KeyPair.generate()
        key_file = self._folder / "l1-key"
        client.write_openssh(key_file)
        seed = self._folder / "l1-seed.tar"
        write_seed(seed, "l1", server, client)
        connection.put(seed, self.places.seed, deadline)
        argv = command(self.host.guest_files, self.places)
        line = f"umask 077; exec {shlex.join(argv)}"
        self._qemu = self.host.start_program(line, deadline, self._qemu_log)
        self._attach_console()
        with Monitor.over(connection, self.helper, self.places.monitor, deadline) as monitor:
            port = forwarded_port(monitor.human("info usernet", deadline))
            self.version = _version(monitor.execute("query-version", deadline))
        self.pid = int(connection.run(["cat", self.places.pid], deadline).stdout)
        self.console.wait_for("l2gate: ready", deadline, self._why_dead)
        return Endpoint("L1", "127.0.0.1", port, "root", str(key_file), server.public_line)

    def close(self) -> None:
        """Quit QEMU and see that it is gone. Idempotent."""
        qemu, self._qemu = self._qemu, None
        if qemu is None:
            return
        deadline = self.host.budget.deadline("L1's QEMU ends", 5)
        with contextlib.suppress(L2gateError):
            if not qemu.ended:
                monitor = Monitor.over(self._connection, self.helper, self.places.monitor, deadline)
                with monitor, contextlib.suppress(L2gateError):
                    monitor.execute("quit", deadline)
                if self.pid:
                    gone = f"while kill -0 {self.pid} 2>/dev/null; do :; done"
                    self._connection.run(gone, deadline, check=False)
        qemu.close()
        if self._bridge:
            self._bridge.close()
        if self._pump:
            self._pump.join(2.0)

    @property
    def _connection(self) -> Connection:
        return self.host.connection

    def _attach_console(self) -> None:
        deadline = self.host.budget.deadline("L1's QEMU opens the console", 15)
        argv = [self.helper, "bridge", "--unix", self.places.console]
        bridge = self._connection.start([*argv, "--within", str(int(deadline.seconds))], deadline)
        self._bridge = bridge
        bridge.channel.settimeout(None)
        self._pump = ConsolePump(bridge.channel.recv, self.console.log)

        def connected() -> bool:
            if why := self._why_dead():
                raise GuestCrash(f"L1's QEMU did not start: {why}", f"see {self._qemu_log}")
            return "connected" in bridge.words

        deadline.poll(connected)

    def _why_dead(self) -> str | None:
        self.host.check_console()
        if self._qemu is None or not self._qemu.ended:
            return None
        return f"QEMU on L0 ended: {self._qemu.words or 'it said nothing'}"
