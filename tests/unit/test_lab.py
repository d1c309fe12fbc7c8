# SPDX-License-Identifier: MIT
"""What needs no lab host: who we become there, what a name means, what hinders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import MissingPrerequisite, UsageError
from l2gate.foundation.settings import resolve as settings
from l2gate.hosts import kinds
from l2gate.hosts.checks import require
from l2gate.hosts.lab import access as lab
from l2gate.hosts.lab.prerequisites import Survey, host_checks
from l2gate.hosts.lab.qemuprogram import Qemu
from l2gate.hosts.persistent import PersistentHost, announce, born_at, config_of
from l2gate.transport.local import LocalConnection
from l2gate.transport.ssh import Endpoint
from l2gate.transport.ssh_config import Name, resolve

SOON = 20.0


def _program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def as_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where `id` says that we are bob; programs of its own come first."""
    _program(tmp_path, "id", '[ "$1" = -u ] && echo ${L2GATE_TEST_UID:-1000} || echo bob')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_a_user_with_a_free_sudo_becomes_root(as_user: Path) -> None:
    _program(as_user, "sudo", '[ "$1" = -n ] || exit 9; shift 2; L2GATE_TEST_UID=0 exec "$@"')
    with LocalConnection("L0") as connection:
        user = lab._become_root(connection, "local", Deadline("root", SOON))
        assert user == "local as bob, root by sudo"
        done = connection.run(["sh", "-c", "echo 'a  b' $L2GATE_TEST_UID"], Deadline("", SOON))
        assert done.stdout == "a  b 0\n"


def test_a_user_without_is_refused_with_the_hint(as_user: Path) -> None:
    _program(as_user, "sudo", "echo 'sudo: a password is required' >&2; exit 1")
    with (
        LocalConnection("L0") as connection,
        pytest.raises(MissingPrerequisite, match="bob is not root") as seen,
    ):
        lab._become_root(connection, "local", Deadline("root", SOON))
    assert "a password is required" in seen.value.cause
    assert "NOPASSWD" in seen.value.hint


def test_a_local_program_hears_that_its_wire_is_closed(tmp_path: Path) -> None:
    with LocalConnection("L0") as connection:
        left = tmp_path / "left"
        program = connection.start(
            ["sh", "-c", f"while read -r line; do echo $line; done; echo gone >{left}"],
            Deadline("", SOON),
        )
        program.send("here")
        assert program.read_line(Deadline("", SOON)) == "here"
        program.close()
        Deadline("it ends", SOON).poll(left.exists)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("ssh://lab1", "ssh lab1"),
        ("ssh://root@lab1:2222", "ssh -p 2222 root@lab1"),
        ("ssh://bob@[::1]:22", "ssh -p 22 bob@::1"),
    ],
)
def test_a_name_is_what_ssh_takes(spec: str, said: str) -> None:
    assert Name.parse(spec).by_ssh() == said


@pytest.mark.parametrize("spec", ["ssh://", "ssh://-oProxyCommand=x", "ssh://a/b", "ssh://a:b"])
def test_what_is_no_name_is_refused(spec: str) -> None:
    with pytest.raises(UsageError):
        Name.parse(spec)


def test_a_name_means_what_ssh_config_says(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch()
    config = tmp_path / "config"
    (tmp_path / "more").write_text("Host *.lab\n User tester\n ProxyJump gate.lab:2200\n")
    config.write_text(
        f"Include {tmp_path}/more\nHost x1.lab\n HostName 192.0.2.7\n Port 2222\n"
        f" IdentityFile {key}\n IdentitiesOnly yes\n HostKeyAlias x1\n"
    )
    target = resolve(Name.parse("ssh://x1.lab", config))
    assert (target.address, target.port, target.user) == ("192.0.2.7", 2222, "tester")
    assert (target.keys, target.others, target.alias) == ((str(key),), False, "x1")
    assert target.jumps == ("gate.lab:2200",)


@pytest.mark.parametrize("folder", ["Köln Büro", "50%h, more", "a  b"])
def test_a_persistent_host_is_reached_from_any_folder(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("L2GATE_STATE", str(tmp_path / folder))
    host = PersistentHost("amd", "emulated-amd", "debian:6.12", os.getpid(), born_at(os.getpid()))
    host.folder.mkdir(parents=True)
    key = tmp_path / "key"
    key.write_text("key")
    announce(host, Endpoint("L0", "127.0.0.1", 2222, "root", str(key), "ssh-ed25519 AAAA"))
    target = resolve(Name.parse(host.url, config_of(host.name)))
    assert (target.address, target.port, target.user) == ("127.0.0.1", 2222, "root")
    assert target.keys == (str(host.folder / "key"),)
    assert str(host.folder / "known_hosts") in target.known_hosts


def test_a_lab_host_takes_no_kernel() -> None:
    with pytest.raises(UsageError, match="runs its own kernel"):
        kinds.find("ssh://x").check(settings({"kernel": "debian:6.12"}))


def test_what_qemu_does_when_the_ioctl_is_refused() -> None:
    def qemu(version: str) -> str:
        return Qemu(("qemu",), f"QEMU emulator version {version} (Debian)").when_refused

    assert "silence" in qemu("5.2.0") and "silence" in qemu("7.2.22")
    assert "stops the VM" in qemu("10.0.13")
    assert "not known" in qemu("9.1.0")


PROBE: dict[str, Any] = {
    "release": "6.12.1", "version": "#1", "tainted": 0, "cpu_vendor": "GenuineIntel",
    "cpu_model": "a CPU", "flags": {"vmx": True, "svm": False}, "hypervisor": None,
    "kvm_module": "kvm_intel", "kvm_modules": ["kvm", "kvm_intel"], "kvm_api": 12,
    "parameters": {"nested": "Y", "ept": "Y"}, "dev_kvm_error": None, "kvm_users": 0,
    "yama_ptrace_scope": 1, "memory_available_mb": 9000, "clock": 0,
}  # fmt: skip


def _hinders(asked: dict[str, str] | None = None, **changed: Any) -> str:
    qemu = Qemu(("qemu",), "QEMU emulator version 10.0.1")
    survey = Survey(PROBE | changed, "root", qemu, "", "", "/room", 9000, settings(asked or {}))
    try:
        require(host_checks(survey))
    except MissingPrerequisite as error:
        return str(error)
    return ""


def test_a_machine_with_all_of_it_is_not_hindered() -> None:
    assert _hinders() == ""


def test_nested_is_looked_at_by_its_value() -> None:
    off = {"nested": "N", "ept": "Y"}
    assert "kvm_intel nested=N" in _hinders(parameters=off)
    assert "--modules nested" in _hinders(parameters=off)
    assert _hinders({"modules": "nested"}, parameters=off) == ""
    assert "2 VMs run" in _hinders({"modules": "nested"}, parameters=off, kvm_users=2)


def test_a_kvm_without_vmx_or_svm_behind_it_is_seen_through() -> None:
    said = _hinders(
        flags={"vmx": False, "svm": False}, kvm_module=None, kvm_modules=["kvm", "kvm_pvm"]
    )
    assert "API version 12, but without VMX or SVM" in said
    assert "kvm_pvm, none for VMX or SVM" in said


def test_other_hindrances_are_named() -> None:
    assert "ptrace_scope=3" in _hinders(yama_ptrace_scope=3)
    assert "deny_ptrace=1" in _hinders(selinux_deny_ptrace=1)
    assert "wanted 4.12.*" in _hinders({"expect_kernel": "4.12.*"})
    assert "100 MB available" in _hinders(memory_available_mb=100)
