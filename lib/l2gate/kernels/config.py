# SPDX-License-Identifier: MIT
"""What an emulated machine needs of a kernel's config, said before anything is booted.

Where there is no configuration (builtin.py), the initramfs and the helper's probe try, and name the
same options.
"""

from __future__ import annotations

import re

from l2gate.vendors.vendors import VENDORS

#: For L0 to come up in either emulated machine and let SSH in. Modules will do for those of
#: `_MODULAR`, all else must be built in.
_MODULAR = ("ATA_PIIX", "BLK_DEV_SD", "E1000", "SQUASHFS", "KVM")
_BUILT_IN = (
    "BINFMT_ELF", "BINFMT_SCRIPT", "BLK_DEV_INITRD", "DEVTMPFS", "EPOLL", "EVENTFD",
    "FILE_LOCKING", "FUTEX", "INET", "PRINTK", "PROC_FS", "SERIAL_8250_CONSOLE", "SHMEM",
    "SIGNALFD", "SYSFS", "TIMERFD", "TMPFS", "UNIX", "UNIX98_PTYS",
)  # fmt: skip
#: A kernel that knows the option and has it off lacks it; older ones have what it brings anyway.
_IF_KNOWN = ("AIO", "CROSS_MEMORY_ATTACH", "MULTIUSER", "X86_PM_TIMER")
#: One of them is enough.
_VENDORS = tuple(vendor.config for vendor in VENDORS)


def missing(text: str) -> list[str]:
    """The options, as CONFIG_ names, that a kernel with this config lacks."""
    values = dict(re.findall(r"^CONFIG_(\w+)=(.*)$", text, re.M))
    off = set(re.findall(r"^# CONFIG_(\w+) is not set$", text, re.M))
    lacks = [name for name in _BUILT_IN if values.get(name) != "y"]
    lacks += [name for name in _MODULAR if values.get(name) not in ("y", "m")]
    lacks += [name for name in _IF_KNOWN if name in off]
    told = [f"CONFIG_{name}" for name in sorted(lacks)]
    if not any(values.get(name) in ("y", "m") for name in _VENDORS):
        told.append(" or ".join(f"CONFIG_{name}" for name in _VENDORS))
    return told
