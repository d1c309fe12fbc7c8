# SPDX-License-Identifier: MIT
"""Lab hosts, on machines that `l2gate up` boots: nothing in the code for ssh:// knows that.

The machine starts with nested=0, as a lab's may; each test leaves it so, and looks.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from asking import ACCEPTED, AMD, CONTROL, EVERY, INTEL, Run, l2gate, l2gate_says
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.settings import checkout
from l2gate.hosts.lab.supervisor import SILENCE
from l2gate.hosts.persistent import PersistentHost, persistent_hosts
from l2gate.plugins.known import known_tests

PATCHED, UNPATCHED = "debian:6.12+patched", "debian:6.12+unpatched"


@dataclass(frozen=True)
class Machine:
    """A machine that stands, as a lab engineer at its shell sees it."""

    host: PersistentHost

    @property
    def url(self) -> str:
        return self.host.url

    @property
    def ssh_config(self) -> Path:
        return self.host.folder / "ssh_config"

    def says(self, command: str) -> str:
        words = ["ssh", "-F", str(self.ssh_config), self.host.name, command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def nested(self) -> str:
        return self.says("cat /sys/module/kvm_*/parameters/nested")

    def without_nested(self) -> None:
        module = self.says("cd /sys/module && echo kvm_*")
        self.says(f"rmmod {module} && modprobe {module} nested=0")
        assert self.nested in ("N", "0")

    def is_as_it_was(self) -> bool:
        """nested=0, no QEMU, no job's folder, no note, and nobody has the lock."""
        return self.nested in ("N", "0") and not self.says(
            "ls /var/lib/l2gate/jobs; ls /var/lib/l2gate | grep former; "
            "ps | grep -e '[q]emu-system' -e 'helper [k]eep'; true"
        )

    def comes_back(self) -> None:
        Deadline("the machine is as it was", SILENCE + 120).poll(self.is_as_it_was, 1.0)


_numbers = count()


def boot(kind: str, kernel: str) -> Iterator[Machine]:
    name = f"test-{kind}-{os.getpid()}-{next(_numbers)}"
    said = l2gate_says("up", "--host", kind, "--kernel", kernel, "--name", name)
    assert said.returncode == 0, said.stderr
    try:
        assert f"--host ssh://{name}" in said.stdout
        yield Machine(next(host for host in persistent_hosts() if host.name == name))
    finally:
        assert l2gate_says("down", name).returncode == 0
        assert name not in [host.name for host in persistent_hosts()]


@pytest.fixture(scope="module")
def amd() -> Iterator[Machine]:
    for machine in boot(AMD, PATCHED):
        machine.without_nested()
        yield machine


@dataclass(frozen=True)
class Asked:
    """A `l2gate run` that goes on beside the test."""

    process: subprocess.Popen[str]
    target: Path

    @classmethod
    def start(cls, machine: Machine, folder: Path, *words: str) -> Asked:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "l2gate", "run", "--verbose"]
        command += ["--json", str(folder / "r.json")]
        process = subprocess.Popen(
            [*command, "--host", machine.url, "--modules", "nested", *words],
            cwd=checkout(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return cls(process, folder / "r.json")

    def until(self, words: str) -> None:
        """Read on until it says so."""
        assert self.process.stdout
        said = []
        for line in self.process.stdout:
            said.append(line)
            if words in line:
                return
        pytest.fail(f"it never said {words!r}: {''.join(said)}")

    def end(self) -> tuple[Run, str]:
        said, _ = self.process.communicate(timeout=600)
        print(said[-4000:])
        return Run(self.process.returncode, json.loads(self.target.read_text())), said

    def kill(self) -> None:
        """SIGKILL for l2gate, for its job and for the job's tests, at once."""
        for pid in [*_descendants(self.process.pid), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for child in map(int, children) for one in [*_descendants(child), child]]


def passes(run: Run) -> None:
    assert (run.code, run.result["verdict"]) == (0, "pass"), run.result["reason"]
    assert run.result["kernel"]["spec"] == "running"
    assert all(case["verdict"] == "pass" for case in run.result["cases"])
    assert {"version", "cmdline", "parameters", "microcode", "hypervisor"} <= set(
        run.result["host"]
    )


def test_two_jobs_at_once_one_waits_and_both_pass(amd: Machine, tmp_path: Path) -> None:
    first = Asked.start(amd, tmp_path / "first")
    first.until("boots the L1 VM")
    assert amd.nested in ("Y", "1")
    second = Asked.start(amd, tmp_path / "second")
    passes(first.end()[0])
    run, said = second.end()
    passes(run)
    assert "waiting up to 3600 s for the host: l2gate job" in said
    assert "changed nested" in said
    assert amd.is_as_it_was()


def test_a_lock_that_does_not_come_free_is_an_error_that_names_its_holder(
    amd: Machine, tmp_path: Path
) -> None:
    first = Asked.start(amd, tmp_path / "first", f"{ACCEPTED}:{CONTROL}")
    first.until("boots the L1 VM")
    run = l2gate(amd.url, "", tmp_path, "--modules", "nested", "--wait", "1")
    assert (run.code, run.result["verdict"]) == (2, "infra-error")
    assert "the host is in use by l2gate job" in run.result["reason"]
    first.end()
    assert amd.is_as_it_was()


def test_the_module_is_put_back_when_the_controller_is_killed(amd: Machine, tmp_path: Path) -> None:
    asked = Asked.start(amd, tmp_path)
    asked.until("inject")
    assert amd.nested in ("Y", "1")
    asked.kill()
    amd.comes_back()


class Relay:
    """Stands between the controller and a machine's SSH port, until it is cut: then not a byte
    passes, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._target, self._open = port, True
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._open = False

    def close(self) -> None:
        for one in (self._server, *self._sockets):
            with suppress(OSError):
                one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while data := here.recv(65536):
                if self._open:
                    there.sendall(data)
            if self._open:
                there.shutdown(socket.SHUT_WR)


def test_the_module_is_put_back_when_the_connection_is_cut(amd: Machine, tmp_path: Path) -> None:
    port = int(amd.ssh_config.read_text().split("Port ")[1].split()[0])
    relay = Relay(port)
    known = (amd.host.folder / "known_hosts").read_text().replace(f":{port}", f":{relay.port}")
    (tmp_path / "known_hosts").write_text(known)
    config = amd.ssh_config.read_text().replace(f"Port {port}", f"Port {relay.port}")
    config = config.replace(str(amd.host.folder / "known_hosts"), str(tmp_path / "known_hosts"))
    (tmp_path / "config").write_text(config)
    asked = Asked.start(amd, tmp_path, "--ssh-config", str(tmp_path / "config"))
    try:
        asked.until("inject")
        assert amd.nested in ("Y", "1")
        relay.cut()
        amd.comes_back()
    finally:
        relay.close()
        run, _ = asked.end()
    assert (run.code, run.result["verdict"]) == (2, "infra-error")


def _left_changed(machine: Machine) -> None:
    """What a host looks like when even the job's supervisor was killed."""
    assert l2gate_says("restore", "--host", machine.url).returncode == 0
    script = machine.says("ls /var/lib/l2gate/store/*kvm-module.sh | tail -1")
    machine.says(f"sh {script} /var/lib/l2gate nested")
    assert machine.nested in ("Y", "1")


def test_restore_finds_the_note(amd: Machine) -> None:
    _left_changed(amd)
    said = l2gate_says("restore", "--host", amd.url)
    assert (said.returncode, "restored nested" in said.stdout) == (0, True)
    assert amd.is_as_it_was()


def test_the_next_job_finds_the_note_and_then_says_what_is_missing(
    amd: Machine, tmp_path: Path
) -> None:
    """It asks for no change, so nested=0 stays: each test is skipped with doctor's words."""
    _left_changed(amd)
    run = l2gate(amd.url, "", tmp_path)
    assert (run.code, run.result["verdict"]) == (3, "skip")
    assert amd.is_as_it_was()
    checks = _examined(amd.url)["checks"]
    (check,) = [c for c in checks if not c["enough"] and c["needed"]]
    words = f"{check['what']}: {check['found']} | hint: {check['hint']}"
    assert {test["reason"] for test in run.result["tests"]} == {words}


def _examined(url: str, *words: str) -> dict[str, Any]:
    said = l2gate_says("doctor", "--json", "--host", url, *words)
    found: dict[str, Any] = json.loads(said.stdout)
    assert (said.returncode == 0) == found["ready"]
    return found


def test_avocado_too_is_not_green_where_nothing_can_run(amd: Machine) -> None:
    command = [sys.executable, "-m", "avocado", "run", "tests/"]
    environment = os.environ | {"L2GATE_HOST": amd.url}
    done = subprocess.run(
        command, cwd=checkout(), env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 3
    assert "skip: nested KVM: kvm_amd nested=0" in done.stderr and "--modules nested" in done.stderr
    assert done.stdout.count("nested KVM: kvm_amd nested=0") >= len(known_tests())


def test_doctor_tells_what_hinders(amd: Machine) -> None:
    assert not _examined(amd.url)["ready"]
    assert _examined(amd.url, "--modules", "nested")["ready"]
    for host in (AMD, INTEL):
        assert _examined(host)["ready"]


def test_a_jump_and_an_alias_lead_there_as_with_ssh(amd: Machine, tmp_path: Path) -> None:
    """The machine is its own jump host: its port 22 can be reached from nowhere else."""
    known = tmp_path / "known_hosts"
    known.write_text("inner " + (amd.host.folder / "known_hosts").read_text().split(" ", 1)[1])
    config = tmp_path / "config"
    config.write_text(
        f"Include {amd.ssh_config}\nHost inner\n HostName 127.0.0.1\n HostKeyAlias inner\n"
        " User root\n"
        f" ProxyJump {amd.host.name}\n IdentityFile {amd.host.folder / 'key'}\n"
        f" UserKnownHostsFile {known}\n"
    )
    assert _examined("ssh://inner", "--ssh-config", str(config), "--modules", "nested")["ready"]
    known.write_text("")
    checks = _examined("ssh://inner", "--ssh-config", str(config))["checks"]
    (check,) = [c for c in checks if c["what"] == "SSH"]
    assert "the host key of inner is not known (ssh-ed25519 SHA256:" in check["found"]
    assert f"ssh -o StrictHostKeyChecking=ask -F {config} inner true" in check["hint"]


def test_another_kernel_than_the_one_meant_is_not_judged(amd: Machine, tmp_path: Path) -> None:
    run = l2gate(amd.url, "", tmp_path, "--expect-kernel", "4.12.*", "--modules", "nested")
    assert (run.code, run.result["verdict"]) == (3, "skip")
    assert "wanted 4.12.*" in run.result["reason"]
    refused = l2gate_says("run", "--host", amd.url, "--kernel", PATCHED)
    assert refused.returncode == 4
    assert "it runs its own kernel" in refused.stderr


def test_the_way_of_old_kernels_on_a_new_one(amd: Machine, tmp_path: Path) -> None:
    """Without KVM_GET_NESTED_STATE: by L2's own CR3, RIP and R15."""
    run = l2gate(amd.url, "", tmp_path, "--modules", "nested", "--proof", "fingerprint")
    passes(run)
    for case in [c for c in run.result["cases"] if c["test"] == EVERY]:
        assert "NESTED_STATE" not in case["proof"]["how"] and "marked" in case["proof"]["how"]


def test_unpatched_is_caught_over_ssh(tmp_path: Path) -> None:
    for machine in boot(AMD, UNPATCHED):
        run = l2gate(machine.url, "", tmp_path, "--proof", "fingerprint")
        assert (run.code, run.result["verdict"]) == (1, "fail")
        assert {c["vector"] for c in run.failing(EVERY)} == set(range(32)) - {2}


def test_a_warning_during_the_job_fails_it_and_is_quoted(tmp_path: Path) -> None:
    for machine in boot(AMD, PATCHED):
        asked = Asked.start(machine, tmp_path)
        asked.until("inject")
        machine.says("echo 'WARNING: CPU: 0 PID: 1 at arch/x86/kvm/x86.c:1 a test' >/dev/kmsg")
        run, _ = asked.end()
        assert (run.code, run.result["verdict"]) == (1, "fail")
        assert "complained during the job" in run.result["reason"]
        assert "arch/x86/kvm/x86.c:1 a test" in run.result["reason"]


def test_an_intel_machine_over_ssh_is_green(tmp_path: Path) -> None:
    for machine in boot(INTEL, PATCHED):
        run = l2gate(machine.url, "", tmp_path)
        passes(run)
        assert run.result["host"]["virtualization"] == "VMX"
