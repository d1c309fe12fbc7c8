# SPDX-License-Identifier: MIT
"""The kinds of hosts: what each says of itself holds, and all that is asked of them is derived."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from l2gate.foundation.errors import UsageError
from l2gate.foundation.events import Timeline
from l2gate.foundation.settings import AUTO, BY_NAME, OPTIONS, resolve
from l2gate.hosts import kinds
from l2gate.hosts.kind import Can, Kind
from l2gate.jobs import repeat
from l2gate.kernels.spec import parse
from l2gate.matrix.mutant import Mutant, all_mutants
from l2gate.vendors.vmx import Vmx
from l2gate.verbs.shell import candidates

each = pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.label)


@each
def test_what_a_kind_says_of_itself_hangs_together(kind: Kind) -> None:
    assert set(kind.options) <= set(BY_NAME)
    assert kind.boots == bool(kind.default_kernel)
    assert kind.boots or not kind.can, "what is not booted is not l2gate's to spend"
    if kind.boots:
        parse(kind.default_kernel)
        assert kind.vendor and kind.seconds > 0
        assert kinds.find(kind.name) is kind


def test_a_machine_over_ssh_is_one_of_its_kind() -> None:
    found = kinds.find("ssh://me@lab1:2222")
    assert (found.name, found.label, found.boots) == ("ssh://me@lab1:2222", "ssh", False)
    with pytest.raises(UsageError, match="not known"):
        kinds.find("lab1")


def test_a_setting_of_some_hosts_is_refused_on_the_others_and_left_out_for_them() -> None:
    """Whatever the setting: each that a kind has for itself, on each kind that has it not."""
    other = {"qemu": "/bin/true", "modules": "nested", "wait": "7", "ssh_config": "x", "bochs": "x"}
    other |= {"fresh": "yes", "warm": "no", "warm_minutes": "7", "side_by_side": "no"}
    assert {name for kind in kinds.KINDS for name in kind.options} == set(other)
    for name, value in other.items():
        settings = resolve({name: value})
        for kind in kinds.KINDS:
            if name in kind.options:
                kinds.refuse_nonsense(kind, settings)
                assert kinds.only_used(kind, settings) == settings
                continue
            with pytest.raises(UsageError, match=f"{name} = .* has no effect") as refused:
                kinds.refuse_nonsense(kind, settings)
            assert all(
                one.label in refused.value.hint for one in kinds.KINDS if name in one.options
            )
            assert kinds.only_used(kind, settings) == resolve()


def test_what_needs_an_ability_names_those_that_have_it() -> None:
    with pytest.raises(UsageError, match="local") as refused:
        kinds.require("local", Can.BE_SPENT)
    assert all(name in refused.value.hint for name in kinds.names(Can.BE_SPENT))
    assert "l2gate run --host local" in refused.value.hint


def test_no_help_speaks_of_hosts_that_are_not_there() -> None:
    for option in OPTIONS:
        assert "{" not in kinds.told(option.help)
    assert all(kind.name in kinds.told(BY_NAME["host"].help) for kind in kinds.KINDS)


@dataclass(frozen=True)
class Toy(Kind):
    """A kind that nobody has heard of."""

    check = make = checks = None  # type: ignore[assignment]


def test_a_new_kind_is_asked_wherever_it_is_able(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of registration: no list of names stands anywhere else."""
    toy = Toy("toy", "a toy", Vmx(), frozenset(Can), default_kernel="debian:6.1", seconds=1.0)
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, toy))
    assert kinds.find("toy") is toy
    assert "toy" in candidates("hosts") and "toy" in candidates("booting")
    assert "toy" in kinds.told(BY_NAME["host"].help)
    assert repeat.hosts_of(resolve({"host": "toy"})) == ["toy"]
    assert kinds.quickest(Can.EXCHANGE_KVM).name == "toy"
    on_vmx, anywhere = (next(m for m in all_mutants() if m.on == on) for on in ("VMX", ""))
    assert isinstance(on_vmx, Mutant)
    assert (on_vmx.host, anywhere.host) == ("toy", "toy")
    assert toy.kernel_spec(resolve()) == "debian:6.1"
    assert toy.kernel_spec(resolve({"kernel": "debian:6.12"})) == "debian:6.12"


def test_a_mutant_that_either_host_would_do_for_goes_to_the_quicker() -> None:
    quickest = min(kinds.able(Can.EXCHANGE_KVM), key=lambda kind: kind.seconds)
    assert {m.host for m in all_mutants() if not m.on} == {quickest.name}
    by_vendor = {m.on: m.host for m in all_mutants() if m.on}
    for vendor, host in by_vendor.items():
        found = kinds.find(host).vendor
        assert found and found.name == vendor


def test_auto_is_a_kind_that_needs_no_hardware() -> None:
    assert Can.BOOT_KERNELS in kinds.find(AUTO).can


@pytest.mark.parametrize("pattern", ["9.9", "[", "6.12"])
def test_another_kernel_than_expected_is_told_before_it_boots(
    pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `run` and by `doctor`, which had said that the suite can run."""
    toy = Toy(name="toy", what="", can=frozenset({Can.BOOT_KERNELS}), default_kernel="debian:6.12")
    kernel = SimpleNamespace(release="6.12.118+deb13-amd64")
    monkeypatch.setattr("l2gate.hosts.kind.prepare", lambda spec, timeline: kernel)
    with pytest.raises(UsageError, match=r"debian:6\.12 is 6\.12\.118\+deb13-amd64, not "):
        toy.prepare_kernel(resolve({"expect_kernel": pattern}), Timeline())
    for asked in ({"expect_kernel": "6.12.*"}, {}):
        prepared = toy.prepare_kernel(resolve(asked), Timeline())
        assert prepared and prepared.release == kernel.release
