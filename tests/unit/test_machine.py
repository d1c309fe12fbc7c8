# SPDX-License-Identifier: MIT
"""An emulated L0 that does not come up: its own words say why."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import cast

import pytest
from l2gate.foundation.deadline import Budget, Deadline
from l2gate.foundation.errors import BenchError, DeadlineExpired, GuestCrash
from l2gate.hosts.emulated.machine import EmulatedHost
from l2gate.kernels.kernel import KernelUnderTest
from l2gate.transport.console import Console
from l2gate.transport.ssh import Endpoint, SshConnection

LACKS = "l2gate: this kernel has neither built in nor as a module: e1000 squashfs"


class Machine(EmulatedHost):
    """An emulator that has said all it will say; it has ended, or goes on in silence."""

    spec = "emulated"

    def __init__(self, folder: Path, said: str, *, ended: bool) -> None:
        log = folder / "console"
        log.write_text(said)
        self.kernel = KernelUnderTest("dir:mine", "7.7.7", folder / "vmlinuz", None, "d", "k")
        self.private, self.budget, self._ended = folder, Budget(0.01), ended
        self._console = Console("L0", log)
        self.emulator_log = folder / "emulator"
        self._process, self._connection, self._kept = None, None, None

    @property
    def emulator(self) -> str:
        return "none"

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["true" if self._ended else "cat"], stdin=subprocess.PIPE)
        if self._ended:
            process.wait()
        return process

    def ssh_port(self, deadline: Deadline) -> int:
        return 0

    def save(self, folder: Path, deadline: Deadline) -> int:
        raise NotImplementedError

    def restore(self, folder: Path, deadline: Deadline) -> None:
        raise NotImplementedError


def failure(folder: Path, said: str, *, ended: bool = True) -> BenchError:
    machine = Machine(folder, said, ended=ended)
    try:
        with pytest.raises(BenchError) as failed:
            machine.boot()
    finally:
        machine.close()
    return failed.value


def test_what_the_kernel_lacks_is_quoted(tmp_path: Path) -> None:
    said = f"[    1.0] booting\r\n{LACKS}\r\n[    2.4] reboot: Power down\r\n"
    error = failure(tmp_path, said)
    assert error.exit_code == 2
    assert error.cause == f"L0 did not finish booting dir:mine: {LACKS.partition(': ')[2]}"
    assert str(tmp_path / "console") in error.hint


def test_silence_after_a_complaint_has_both_reasons(tmp_path: Path) -> None:
    error = failure(tmp_path, "l2gate: module kvm.ko could not be loaded\n", ended=False)
    assert "module kvm.ko could not be loaded; L0 boots and lets SSH in" in error.cause


def test_a_panic_outweighs_a_complaint(tmp_path: Path) -> None:
    error = failure(tmp_path, f"{LACKS}\n[ 1.0] Kernel panic - not syncing: x\n")
    assert isinstance(error, GuestCrash)
    assert "Kernel panic" in error.cause


@pytest.mark.parametrize(
    ("said", "ended", "kind"),
    [("", False, DeadlineExpired), ("[ 1.0] reboot: Power down\n", True, GuestCrash)],
)
def test_without_a_complaint_the_reason_stays(
    said: str, ended: bool, kind: type[BenchError], tmp_path: Path
) -> None:
    error = failure(tmp_path, said, ended=ended)
    assert isinstance(error, kind)
    assert "did not finish booting" not in error.cause


class Kept(Machine):
    """One that says that nobody is connected any more only if it is let."""

    template_key = "k"

    def __init__(self, folder: Path, *, alone: bool) -> None:
        super().__init__(folder, "l2gate: ready\nl2gate: left alone 0badcafe\n", ended=False)
        self.saved = False
        self.template, self._alone = folder / "template", alone
        self.template.mkdir()
        self.seed.write_text("seed")
        (folder / "key").write_text("key")
        key = str(folder / "key")
        self._endpoint = Endpoint("L0", "127.0.0.1", 1, "root", key, "ssh-ed25519 AAAA")

    def run(self, line: str, deadline: Deadline) -> None:
        (word,) = re.findall(r"echo (l2gate: left alone \w+)", line)
        if self._alone:
            with self._console.log.open("a") as console:
                console.write(f"{word}\n")

    @property
    def connection(self) -> SshConnection:
        return cast(SshConnection, self)

    def save(self, folder: Path, deadline: Deadline) -> int:
        self.saved = True
        return 0


def test_it_is_kept_when_nobody_is_connected_and_not_because_nobody_was_once(
    tmp_path: Path,
) -> None:
    """What was started from a template has that word of the first time on its console."""
    for alone in (True, False):
        folder = tmp_path / str(alone)
        folder.mkdir()
        machine = Kept(folder, alone=alone)
        if alone:
            assert machine.keep({}).console.read_text().count("left alone") == 2
        else:
            with pytest.raises(DeadlineExpired, match="L0 is kept"):
                machine.keep({})
        assert machine.saved is alone
