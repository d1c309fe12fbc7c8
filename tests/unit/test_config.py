# SPDX-License-Identifier: MIT
"""What a kernel's config lacks is named at once."""

from __future__ import annotations

import pytest
from l2gate.foundation.settings import checkout
from l2gate.kernels import config

SMALL = (checkout() / "images/kernels/eras/small.config").read_text()


def test_the_small_config_lacks_nothing() -> None:
    assert config.missing(SMALL) == []


@pytest.mark.parametrize("option", ["FILE_LOCKING", "CROSS_MEMORY_ATTACH", "E1000", "KVM"])
def test_an_option_that_is_off_is_named(option: str) -> None:
    text = SMALL.replace(f"CONFIG_{option}=y", f"# CONFIG_{option} is not set")
    text = text.replace(f"CONFIG_{option}=m", f"# CONFIG_{option} is not set")
    assert config.missing(text) == [f"CONFIG_{option}"]


def test_all_are_named_at_once_and_one_vendor_is_enough() -> None:
    text = "".join(
        line for line in SMALL.splitlines(keepends=True)
        if not line.startswith(("CONFIG_EVENTFD", "CONFIG_SQUASHFS=", "CONFIG_KVM_INTEL"))
    )  # fmt: skip
    assert config.missing(text) == ["CONFIG_EVENTFD", "CONFIG_SQUASHFS"]
    text = text.replace("CONFIG_KVM_AMD=m\n", "")
    assert config.missing(text)[-1] == "CONFIG_KVM_INTEL or CONFIG_KVM_AMD"


def test_a_module_will_not_do_for_what_init_needs() -> None:
    assert config.missing(SMALL.replace("CONFIG_UNIX=y", "CONFIG_UNIX=m")) == ["CONFIG_UNIX"]


def test_what_an_older_kernel_does_not_know_it_has() -> None:
    assert config.missing(SMALL.replace("CONFIG_CROSS_MEMORY_ATTACH=y\n", "")) == []
