# SPDX-License-Identifier: MIT
"""The Bochs program: which one is used, whether it emulates VMX, how it is started."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation import cache, debian
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import MissingPrerequisite, UsageError
from l2gate.foundation.process import die_with_parent, run
from l2gate.foundation.settings import Settings
from l2gate.hosts.emulated import ramboot
from l2gate.hosts.emulated.parked import Link
from l2gate.images import userland

#: A CPU with VMX, EPT, unrestricted guest and VMCS shadowing, and as little else as can be.
MODEL = "corei7_skylake_x"
#: Instructions in a second of the machine's devices (PIT, ACPI timer, local APIC). Linux is told
#: the same of the TSC, or it would set one timer by the other and take seven times the ticks.
IPS = 700_000_000
_ROM_RECIPE = "1"
_PROBE_RECIPE = "1"
_PROBE_SECONDS = 30


@dataclass(frozen=True)
class Bochs:
    """A Bochs program, and the ROMs and plug-ins that it runs with."""

    program: Path
    root: Path
    own: bool

    @classmethod
    def find(cls, settings: Settings) -> Bochs:
        """The one that the setting `bochs` names, or Debian trixie's from the suite root.

        Raises UsageError for one that is not there, MissingPrerequisite if Debian's is not.
        """
        root = debian.find(debian.SUITES[0]).path
        program = settings.bochs
        if program is None:
            return cls(root / "usr/bin/bochs-bin", root, own=False)
        if not os.access(program, os.X_OK) or program.is_dir():
            raise UsageError(
                f"bochs = {program}: there is no such program",
                "name a Bochs binary, or leave it out to use Debian's",
            )
        return cls(program.resolve(), root, own=True)

    @property
    def command(self) -> list[str]:
        """Debian trixie's binary runs with trixie's own libraries, whatever this machine has."""
        if self.own:
            return [str(self.program)]
        libraries = self.root / "usr/lib/x86_64-linux-gnu"
        loader = self.root / "lib64/ld-linux-x86-64.so.2"
        return [str(loader), "--library-path", str(libraries), str(self.program)]

    @property
    def environment(self) -> dict[str, str]:
        ours = {"TERM": "vt100", "BXSHARE": str(self.root / "usr/share/bochs")}
        ours["TERMINFO_DIRS"] = f"{self.root}/lib/terminfo:{self.root}/usr/share/terminfo"
        if not self.own:
            plugins = self.root / "usr/lib/x86_64-linux-gnu/bochs/plugins"
            ours["LTDL_LIBRARY_PATH"] = str(plugins)
        return os.environ | ours

    def version(self) -> str:
        """`Bochs 3.0`. Raises MissingPrerequisite if the program is none, or has no VMX."""

        def make(folder: Path) -> None:
            version = self._said_version()
            self._check_vmx(folder)
            (folder / "version").write_text(version)

        key = cache.digest(_PROBE_RECIPE, self.program, userland.recipe("bochs/rom.S"))
        return (cache.make("bochs", key, make) / "version").read_text()

    def _said_version(self) -> str:
        try:
            done = subprocess.run(
                [*self.command, "--help", "cpu"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PROBE_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MissingPrerequisite(f"{self.program} does not run: {error}", _HINT) from None
        found = re.search(r"Bochs x86 Emulator (\S+)", done.stdout + done.stderr)
        if not found:
            raise MissingPrerequisite(f"{self.program} is not Bochs", _HINT)
        return f"Bochs {found.group(1)}"

    def _check_vmx(self, folder: Path) -> None:
        """Power on for a moment: our ROM, given no kernel, tells whether the CPU has VMX."""
        said, log = folder / "serial", folder / "log"
        config = folder / "bochsrc"
        lines = [
            *common(self, log, said),
            "memory: host=32, guest=32",
            f"cpu: model={MODEL}, ips={IPS}",
            "boot: disk",
        ]
        config.write_text("\n".join(lines) + "\n")
        terminal = Terminal()
        process = start(self, config, terminal)
        deadline = Deadline("Bochs tells whether it has VMX", _PROBE_SECONDS)

        def answer() -> str | None:
            text = said.read_text(errors="replace") if said.exists() else ""
            found = re.search(r"l2gate: (\S.*)\n", text)
            return found.group(1) if found else ("nothing" if process.poll() is not None else None)

        try:
            heard = deadline.poll(answer)
        finally:
            process.kill()
            process.wait()
            terminal.close()
        if heard != "VMX":
            words = " / ".join(panics(log)) or heard
            raise MissingPrerequisite(
                f"this Bochs ({self.program}) emulates no VMX: asked for the CPU {MODEL}, "
                f"it said: {words}",
                _HINT,
            )


_HINT = "use a Bochs 3.0 built with VMX, or leave the setting `bochs` empty to use Debian's"


def rom() -> Path:
    """The machine's ROM, assembled now if its source has changed."""
    source = userland.recipe("bochs/rom.S")

    def make(folder: Path) -> None:
        plain, linked = folder / "rom.o", folder / "rom.bin"
        run(["gcc", "-c", "-o", plain, source], what="assembling the ROM", hint="run `make apt`")
        run(["ld", "-Ttext=0", "--oformat", "binary", "-o", linked, plain], what="linking the ROM")
        (folder / "l2gate.rom").write_bytes(ramboot.rom(linked.read_bytes()))

    return cache.make("rom", cache.digest(_ROM_RECIPE, source), make) / "l2gate.rom"


class Terminal:
    """The pty that Bochs' display wants; what is drawn there is thrown away."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self._thread = threading.Thread(target=self._drain, daemon=True, name="Bochs' display")
        self._thread.start()

    def close(self) -> None:
        """Call it when Bochs has ended: the last holder of the slave is then this process."""
        os.close(self.slave)
        self._thread.join(2.0)
        os.close(self._master)

    def _drain(self) -> None:
        with contextlib.suppress(OSError):  # EIO when the slave is closed
            while os.read(self._master, 65536):
                pass


def start(
    bochs: Bochs, config: Path, terminal: Terminal, link: Link | None = None
) -> subprocess.Popen[bytes]:
    """Power on; with a ``link``, as a machine that can be parked. Call it in the main thread; the
    caller ends the process and closes terminal and link."""
    nothing: tuple[dict[str, str], tuple[int, ...]] = ({}, ())
    with link.preload() if link else contextlib.nullcontext(nothing) as (more, descriptors):
        return subprocess.Popen(
            [*bochs.command, "-q", "-f", str(config)],
            stdin=terminal.slave,
            stdout=terminal.slave,
            stderr=terminal.slave,
            cwd=config.parent,
            env=bochs.environment | more,
            pass_fds=descriptors,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )


def common(bochs: Bochs, log: Path, console: Path) -> list[str]:
    """The lines of every configuration: display, ROMs, log, serial port."""
    bios = bochs.root / "usr/share/bochs/BIOS-bochs-latest"
    return [
        "plugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=1, parallel=0, serial=1, "
        "gameport=0, iodebug=0, e1000=1",
        "config_interface: textconfig",
        "display_library: term",
        "vga: update_freq=1",
        f"romimage: file={quoted(bios)}, options=fastboot",
        f"vgaromimage: file={quoted(rom())}",
        "clock: sync=none, time0=utc",
        f"log: {quoted(log)}",
        "panic: action=fatal",
        "error: action=ignore",
        f"com1: enabled=1, mode=file, dev={quoted(console)}",
    ]


def quoted(path: Path) -> str:
    """``path`` as a configuration takes it: elsewhere blanks are dropped and commas separate."""
    return f'"{path}"'


def panics(log: Path) -> list[str]:
    """The first of Bochs' panics in its log: what it says last is only that it ends."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [line for line in lines if re.match(r"\d+p\[", line)][:3]
