# SPDX-License-Identifier: MIT
"""The L1 VM: QEMU with KVM on L0, its monitor and its console on channels of their own."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import GuestCrash, L2gateError
from l2gate.hosts.host import GuestFiles, Host, Program, TemplateCapable
from l2gate.images.userland import LINUX
from l2gate.transport import migration
from l2gate.transport.connection import Connection, Remote
from l2gate.transport.console import Console, ConsolePump
from l2gate.transport.keys import KeyPair, write_seed
from l2gate.transport.qmp import Monitor, forwarded_port
from l2gate.transport.ssh import Endpoint

_BOOT_SECONDS = 20
_MEGABYTES = 640
#: Where a template has its key and what its console had said.
_KEPT_KEY, _KEPT_CONSOLE = "l1-key", "l1-console.log"
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

    @property
    def ram(self) -> str:
        return f"{self.folder}/l1-ram"

    @property
    def state(self) -> str:
        return f"{self.folder}/l1-state"


def command(files: GuestFiles, places: Places, ram: str = "") -> list[str]:
    """QEMU's command line: a microvm with one vCPU, so that L1 and L2 share it. ``ram`` is `on` or
    `off`: RAM is a file of L0's that L1 writes to, or that it only starts from."""
    words = [*files.qemu, "-name", "l2gate-l1,debug-threads=on", "-nodefaults", "-no-user-config"]
    words += ["-display", "none", "-no-reboot", "-pidfile", places.pid]
    words += ["-M", "microvm,acpi=on,pcie=off,rtc=on,pic=off,pit=off,isa-serial=on"]
    words += ["-bios", files.bios]
    words += ["-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", str(_MEGABYTES)]
    if ram:
        backend = f"memory-backend-file,id=ram,size={_MEGABYTES}M,mem-path={places.ram}"
        words += ["-object", f"{backend},share={ram}", "-machine", "memory-backend=ram"]
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


def _endpoint(port: int, key_file: Path, host_key: str) -> Endpoint:
    return Endpoint("L1", "127.0.0.1", port, "root", str(key_file), host_key)


@dataclass(frozen=True)
class SavedL1:
    """An L1 whose state was put aside on L0. ``console`` is what it had said, ``offer`` what the
    KVM offered it that it has run on (the helper's `probe`)."""

    endpoint: Endpoint
    console: str
    offer: str


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
        self._endpoint: Endpoint | None = None
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
        ram = "on" if isinstance(self.host, TemplateCapable) else ""
        port = self._start(command(self.host.guest_files, self.places, ram), deadline)
        self.console.wait_for("l2gate: ready", deadline, self._why_dead)
        self._endpoint = _endpoint(port, key_file, server.public_line)
        return self._endpoint

    def _start(self, argv: Sequence[str], deadline: Deadline, incoming: str = "") -> int:
        """Start QEMU; with ``incoming``, a line of the shell that prints a state, L1 goes on with
        that. Returns the port on L0 that leads to L1's SSH server."""
        line = f"umask 077; exec {shlex.join(argv)}"
        self._qemu = self.host.start_program(line, deadline, self._qemu_log)
        self._attach_console()
        with self._monitor(deadline) as monitor:
            if incoming:
                migration.receive(monitor, incoming, deadline)
                monitor.execute("cont", deadline)
            port = forwarded_port(monitor.human("info usernet", deadline))
            self.version = _version(monitor.execute("query-version", deadline))
        self.pid = int(self._connection.run(["cat", self.places.pid], deadline).stdout)
        return port

    def save(self, offer: str) -> SavedL1:
        """Put its state aside on L0, beside its RAM, and end QEMU. Only for one whose RAM is a
        file that it writes to: one that `boot` has started. Raises L2gateError."""
        assert self._endpoint is not None
        deadline = self.host.budget.deadline("L1's state is saved", _BOOT_SECONDS)
        with self._monitor(deadline) as monitor:
            migration.send(monitor, f"cat >{self.places.state}", deadline)
        console = self.console.text()
        self.close()
        return SavedL1(self._endpoint, console, offer)

    def restore(self, saved: SavedL1) -> Endpoint:
        """Go on with an L1 that was saved on this host, as often as one likes: its RAM is only
        started from. Returns the way to its SSH server. Raises L2gateError."""
        deadline = self.host.budget.deadline("L1 goes on from its saved state", _BOOT_SECONDS)
        self.console.log.write_text(saved.console)
        argv = command(self.host.guest_files, self.places, "off")
        port = self._start([*argv, "-incoming", "defer"], deadline, f"cat {self.places.state}")
        self._endpoint = replace(saved.endpoint, port=port)
        return self._endpoint

    def leave(self, folder: Path) -> dict[str, Any]:
        """Stop it and let go of it, so that `adopt` can go on with it on a machine that starts
        where this one ends; its files are put into ``folder``. Returns what `adopt` must know.

        Stopped, as an emulated CPU cannot be saved while it is inside a guest.
        """
        assert self._endpoint is not None
        deadline = self.host.budget.deadline("L1 is stopped", 5)
        self._command("stop", deadline)
        self._let_go()
        self._qemu = None
        shutil.copy(self._endpoint.key_file, folder / _KEPT_KEY)
        shutil.copy(self.console.log, folder / _KEPT_CONSOLE)
        return {
            "port": self._endpoint.port,
            "host_key": self._endpoint.host_key,
            "pid": self.pid,
            "version": self.version,
        }

    def adopt(self, folder: Path, about: dict[str, Any], *, runs: bool = True) -> Endpoint:
        """Take over the L1 that `leave` has left, on a host that has it, and let it run if it is
        to. Returns the way to its SSH server. Raises L2gateError."""
        deadline = self.host.budget.deadline("L1 goes on", _BOOT_SECONDS)
        key_file = self._folder / "l1-key"
        shutil.copy(folder / _KEPT_KEY, key_file)
        shutil.copy(folder / _KEPT_CONSOLE, self.console.log)
        self.pid, self.version = int(about["pid"]), str(about["version"])
        assert isinstance(self.host, TemplateCapable)
        self._qemu = self.host.follow_program(deadline, self._qemu_log)
        self._attach_console()
        if runs:
            self._command("cont", deadline)
        self._endpoint = _endpoint(int(about["port"]), key_file, str(about["host_key"]))
        return self._endpoint

    def close(self) -> None:
        """Quit QEMU and see that it is gone. Idempotent."""
        qemu, self._qemu = self._qemu, None
        if qemu is None:
            return
        deadline = self.host.budget.deadline("L1's QEMU ends", 5)
        with contextlib.suppress(L2gateError):
            if not qemu.ended:
                with self._monitor(deadline) as monitor, contextlib.suppress(L2gateError):
                    monitor.execute("quit", deadline)
                # Not by a busy look on L0: on one CPU that would take half of it from QEMU.
                deadline.poll(lambda: qemu.ended, 0.01)
        qemu.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._bridge:
            self._bridge.close()
        if self._pump:
            self._pump.join(2.0)

    def _command(self, command: str, deadline: Deadline) -> None:
        with self._monitor(deadline) as monitor:
            monitor.execute(command, deadline)

    def _monitor(self, deadline: Deadline) -> Monitor:
        return Monitor.over(self._connection, self.helper, self.places.monitor, deadline)

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
