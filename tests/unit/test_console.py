# SPDX-License-Identifier: MIT
"""Consoles: a crash ends a wait at once and names the level."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import DeadlineExpired, GuestCrash
from l2gate.transport.console import Console, CrashWatch


def console(folder: Path, text: str) -> Console:
    log = folder / "console.log"
    log.write_text(text)
    return Console("L1", log)


def test_the_words_end_the_wait(tmp_path: Path) -> None:
    console(tmp_path, "l2gate: ready\n").wait_for("ready", Deadline("it is up", 1))


@pytest.mark.parametrize(
    "line",
    [
        "[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs",
        "[ 2.0] WARNING: CPU: 0 PID: 1 at arch/x86/kvm/x86.c:10437",
        "[ 3.0] BUG: unable to handle page fault for address: 0",
        "[ 4.0] rcu: INFO: rcu_preempt self-detected stall on CPU",
    ],
)
def test_a_crash_ends_the_wait_and_names_the_level(tmp_path: Path, line: str) -> None:
    with pytest.raises(GuestCrash, match="L1 crashed"):
        console(tmp_path, f"booting\n{line}\n").wait_for("ready", Deadline("it is up", 60))


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: CPU: 0 PID: 0 at arch/x86/kernel/fpu/xstate.c:878 paranoid_xstate_size_valid+0x4",
        "WARNING: CPU: 0 PID: 91 at arch/x86/kvm/x86.c:1289 kvm_set_tsc_khz+0x1ec/0x200",
    ],
)
def test_a_warning_of_an_emulated_cpu_is_no_crash(tmp_path: Path, line: str) -> None:
    assert console(tmp_path, f"{line}\n").crash() is None


def test_a_level_that_ended_is_told_from_one_that_is_slow(tmp_path: Path) -> None:
    slow = console(tmp_path, "booting\n")
    with pytest.raises(GuestCrash, match="QEMU ended"):
        slow.wait_for("ready", Deadline("it is up", 60), lambda: "QEMU ended")
    with pytest.raises(DeadlineExpired, match="booting"):
        slow.wait_for("ready", Deadline("it is up", 0.05))


def test_a_watch_tells_of_a_crash_while_others_wait(tmp_path: Path) -> None:
    level, crashed = console(tmp_path, "booting\n"), threading.Event()
    watch = CrashWatch(level, crashed.set)
    assert not crashed.wait(1.2)
    level.log.write_text("booting\nKernel panic - not syncing: Fatal exception\n")
    assert crashed.wait(5)
    watch.close()


def test_a_watch_leaves_a_kernel_that_complains_to_the_test(tmp_path: Path) -> None:
    level, crashed = console(tmp_path, "booting\n"), threading.Event()
    watch = CrashWatch(level, crashed.set)
    level.log.write_text("WARNING: CPU: 0 PID: 858 at arch/x86/kvm/x86.c:9903 f+0x1/0x2 [kvm]\n")
    assert not crashed.wait(1.2)
    watch.close()


def test_a_watch_that_is_closed_tells_nothing(tmp_path: Path) -> None:
    level, crashed = console(tmp_path, "booting\n"), threading.Event()
    CrashWatch(level, crashed.set).close()
    level.log.write_text("Oops: 0000 [#1] SMP\n")
    assert not crashed.wait(1.2)
