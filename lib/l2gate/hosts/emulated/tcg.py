# SPDX-License-Identifier: MIT
"""`emulated-amd`: QEMU without acceleration emulates an AMD machine with SVM."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import MissingPrerequisite
from l2gate.foundation.process import die_with_parent, run
from l2gate.foundation.settings import Settings
from l2gate.hosts.emulated.kind import EmulatedKind
from l2gate.hosts.emulated.machine import EmulatedHost, program
from l2gate.transport.qmp import Monitor, forwarded_port
from l2gate.vendors.svm import Svm

_QEMU = "qemu-system-x86_64"


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
        self._monitor_path = self.private / "l0-qmp"
        words = [_QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        # `max` with the vendor of an AMD CPU: KVM chooses its module by SVM, not by the name.
        words += ["-M", "pc,usb=off,vmport=off", "-accel", "tcg,thread=multi"]
        # Without page tables of five levels, which KVM before 4.14 does not know: its guests are
        # handed a CPU that says it has them.
        words += ["-cpu", "max,la57=off"]
        # One CPU: between two, each of the helper's hand-overs to QEMU's thread would be an IPI,
        # which costs an emulator more than the turn itself.
        words += ["-smp", "1", "-m", "2048"]
        words += ["-kernel", str(self.kernel.fastest), "-initrd", str(self.initrd)]
        words += ["-append", self.command_line]
        for index, (file, mode) in enumerate(((self.image, "on"), (self.seed, "on"))):
            drive = f"format=raw,if=none,id=d{index},snapshot={mode}"
            words += ["-drive", f"file={_value(file)},{drive}"]
            words += ["-device", f"ide-hd,drive=d{index},bus=ide.{index},unit=0"]
        # Port 0: the kernel chooses a free one, and the monitor tells which.
        words += ["-netdev", "user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"]
        words += ["-device", "e1000,netdev=n0,romfile="]
        words += ["-chardev", f"file,id=console,path={_value(self.console.log)}"]
        words += ["-serial", "chardev:console"]
        words += ["-qmp", f"unix:{_value(self._monitor_path)},server=on,wait=off"]
        with self.emulator_log.open("wb") as log:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    def ssh_port(self, deadline: Deadline) -> int:
        deadline.poll(lambda: self._monitor_path.exists() or bool(self._why_dead()))
        with Monitor.at(self._monitor_path, deadline) as monitor:
            table = monitor.human("info usernet", deadline)
        return forwarded_port(table)


KIND = EmulatedKind(
    name="emulated-amd",
    what="QEMU (TCG) emulates an AMD machine with SVM: needs no virtualization hardware, faster",
    vendor=Svm(),
    seconds=50.0,
    host=TcgHost,
    emulator=emulator,
)
