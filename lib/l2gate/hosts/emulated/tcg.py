# SPDX-License-Identifier: MIT
"""`emulated-amd`: QEMU without acceleration emulates an AMD machine with SVM."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
from pathlib import Path

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, MissingPrerequisite
from l2gate.foundation.process import die_with_parent, run
from l2gate.foundation.settings import Settings
from l2gate.hosts.emulated.kind import TEMPLATE_OPTIONS, EmulatedKind
from l2gate.hosts.emulated.machine import EmulatedHost, program
from l2gate.transport import migration
from l2gate.transport.qmp import Monitor, forwarded_port
from l2gate.vendors.svm import Svm

_QEMU = "qemu-system-x86_64"
_MEGABYTES = 2048
#: A template's files.
_RAM, _STATE = "ram", "state"
_LOOK_SECONDS = 0.01


def emulator(settings: Settings) -> str:
    """`QEMU 7.2.22 (Debian 1:7.2+dfsg-7), TCG`. Raises MissingPrerequisite if there is none."""
    if program(_QEMU) is None:
        raise MissingPrerequisite(f"{_QEMU} is not installed", "run `make apt`")
    text = run([_QEMU, "--version"], what="asking QEMU for its version").decode()
    found = re.search(r"version (.+)", text)
    return f"QEMU {found.group(1).strip() if found else 'of unknown version'}, TCG"


def _value(path: Path) -> str:
    """``path`` as the value of one of QEMU's options, in which a comma is written twice."""
    return str(path).replace(",", ",,")


def copied(source: Path, target: Path) -> Path:
    """A copy that leaves holes where the source has some; ``target`` itself."""
    run(["cp", "--sparse=always", "--reflink=auto", source, target], what="copying L0's RAM")
    return target


class TcgHost(EmulatedHost):
    """QEMU TCG: one emulated AMD CPU, PIIX IDE, e1000 behind slirp."""

    slowness = 6.0
    #: A timer that ticks by itself: with one that is set anew each time, L0 was seen without timer
    #: interrupts beside a Linux L2, for a minute, until a network packet came.
    command_line = f"{EmulatedHost.command_line} nohz=off highres=off"

    @property
    def emulator(self) -> str:
        return emulator(self.settings)

    def start(self) -> subprocess.Popen[bytes]:
        ram = self._ram(self.template / _RAM, "on") if self.template else []
        return self._start(ram)

    def _ram(self, file: Path, share: str) -> list[str]:
        """The guest's RAM in a file: written by the machine that is kept, seen by those that start
        from it until they write themselves (mmap(2), MAP_PRIVATE)."""
        backend = f"memory-backend-file,id=ram,size={_MEGABYTES}M,mem-path={_value(file)}"
        return ["-object", f"{backend},share={share}", "-machine", "memory-backend=ram"]

    def save(self, folder: Path, deadline: Deadline) -> int:
        assert self._process is not None
        with self._monitor(deadline) as monitor:
            migration.send(monitor, f"cat >{shlex.quote(str(folder / _STATE))}", deadline)
            monitor.execute("quit", deadline)
        self._process.wait()
        return 0

    def restore(self, folder: Path, deadline: Deadline) -> None:
        if self.template:  # to be kept itself: with RAM of its own
            ram = self._ram(copied(folder / _RAM, self.template / _RAM), "on")
        else:
            ram = self._ram(folder / _RAM, "off")
        self._process = self._start([*ram, "-incoming", "defer"])
        with self._monitor(deadline) as monitor:
            migration.receive(monitor, f"cat {shlex.quote(str(folder / _STATE))}", deadline)

    def _monitor(self, deadline: Deadline) -> Monitor:
        """The monitor of a QEMU that may just be starting. Raises BenchError if it ended."""

        def connected() -> socket.socket | None:
            if why := self._why_dead():
                raise BenchError(why, f"see {self.emulator_log}")
            end = socket.socket(socket.AF_UNIX)
            try:
                end.connect(str(self._monitor_path))
            except (FileNotFoundError, ConnectionRefusedError):  # not bound yet, or not listening
                end.close()
                return None
            return end

        return Monitor(deadline.poll(connected, _LOOK_SECONDS), deadline)

    def _start(self, more: list[str]) -> subprocess.Popen[bytes]:
        self._monitor_path = self.private / "l0-qmp"
        self._monitor_path.unlink(missing_ok=True)
        words = [_QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        # `max` with the vendor of an AMD CPU: KVM chooses its module by SVM, not by the name.
        words += ["-M", "pc,usb=off,vmport=off", "-accel", "tcg,thread=multi"]
        # Without page tables of five levels, which KVM before 4.14 does not know: its guests are
        # handed a CPU that says it has them.
        words += ["-cpu", "max,la57=off"]
        # One CPU: between two, each of the helper's hand-overs to QEMU's thread would be an IPI,
        # which costs an emulator more than the turn itself.
        words += ["-smp", "1", "-m", str(_MEGABYTES), *more]
        words += ["-kernel", str(self.kernel.fastest), "-initrd", str(self.initrd)]
        words += ["-append", self.command_line]
        for index, (file, mode) in enumerate(((self.image, "on"), (self.seed, "on"))):
            drive = f"format=raw,if=none,id=d{index},snapshot={mode}"
            words += ["-drive", f"file={_value(file)},{drive}"]
            words += ["-device", f"ide-hd,drive=d{index},bus=ide.{index},unit=0"]
        # Port 0: the kernel chooses a free one, and the monitor tells which.
        words += ["-netdev", "user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"]
        words += ["-device", "e1000,netdev=n0,romfile="]
        words += ["-chardev", f"file,id=console,path={_value(self.console.log)},append=on"]
        words += ["-serial", "chardev:console"]
        words += ["-qmp", f"unix:{_value(self._monitor_path)},server=on,wait=off"]
        with self.emulator_log.open("ab") as log:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    def ssh_port(self, deadline: Deadline) -> int:
        with self._monitor(deadline) as monitor:
            table = monitor.human("info usernet", deadline)
        return forwarded_port(table)


KIND = EmulatedKind(
    name="emulated-amd",
    what="QEMU (TCG) emulates an AMD machine with SVM: needs no virtualization hardware, faster",
    vendor=Svm(),
    options=TEMPLATE_OPTIONS,
    seconds=50.0,
    host=TcgHost,
    emulator=emulator,
)
