# SPDX-License-Identifier: MIT
"""What is built into a kernel of the user's own, as far as that can be told without booting it."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from l2gate.kernels import vmlinux
from l2gate.vendors.vendors import VENDORS

#: The configuration option of each driver that is asked for.
_OPTIONS = {
    "ata_piix": "ATA_PIIX",
    "sd_mod": "BLK_DEV_SD",
    "e1000": "E1000",
    "squashfs": "SQUASHFS",
    "kvm": "KVM",
    **{vendor.module: vendor.config for vendor in VENDORS},
}
#: What a kernel must hold somewhere if the driver is built in: the name that the driver registers
#: (drivers/scsi/sd.c: sd_disk_class; virt/kvm/kvm_main.c: anon_inode_getfile), or, for a vendor's
#: KVM, the prefix of its parameters. That it is there proves nothing, that it is not there does.
_FINGERPRINT = {
    "ata_piix": b"ata_piix\0",
    "sd_mod": b"scsi_disk\0",
    "e1000": b"e1000\0",
    "squashfs": b"squashfs\0",
    "kvm": b"kvm-vm\0",
    **{vendor.module: vendor.module.encode() for vendor in VENDORS},
}
_IKCONFIG = (b"IKCFG_ST", b"IKCFG_ED")  # kernel/configs.c


@dataclass(frozen=True)
class BuiltIn:
    """``there`` are built in, ``absent`` are not (all that are not there, if ``whole``); ``where``
    says what tells so."""

    where: str
    there: frozenset[str] = field(default_factory=frozenset)
    absent: frozenset[str] = field(default_factory=frozenset)
    whole: bool = False

    def has(self, name: str) -> bool | None:
        """None: it cannot be told."""
        if name in self.there:
            return True
        return False if self.whole or name in self.absent else None


def read(modules: Path | None, folder: Path | None, image: Path, release: str) -> BuiltIn:
    """From the best source that there is: modules.builtin, the kernel's configuration, its image.

    ``modules`` is its module tree, ``folder`` where the user keeps it.
    """
    for home in (modules, folder):
        if home and (home / "modules.builtin").is_file():
            return _listed(home / "modules.builtin")
    if found := configuration(folder, image, release):
        return _configured(*found)
    data = _unpacked(image)
    absent = frozenset(name for name, mark in _FINGERPRINT.items() if data and mark not in data)
    return BuiltIn("its image does not hold their names", absent=absent)


def configuration(folder: Path | None, image: Path, release: str) -> tuple[str, str] | None:
    """What the kernel was configured with, and where that is said; None if it is nowhere."""
    if text := _embedded(_unpacked(image)):
        return text, "the configuration in its image"
    for file in _configurations(folder, release) if folder else ():
        if (text := _of_release(file, release)) is not None:
            return text, str(file)
    return None


def _unpacked(image: Path) -> bytes:
    plain = vmlinux.unpacked(image)
    return plain.path.read_bytes() if plain else b""


def _listed(file: Path) -> BuiltIn:
    names = (Path(line).stem.replace("-", "_") for line in file.read_text().split())
    return BuiltIn(str(file), frozenset(names), whole=True)


def _embedded(data: bytes) -> str | None:
    """CONFIG_IKCONFIG's copy of the configuration."""
    start, end = _IKCONFIG
    at = data.find(start)
    packed = data[at + len(start) : data.find(end, at)] if at >= 0 else b""
    try:
        return zlib.decompress(packed, wbits=31).decode(errors="replace") if packed else None
    except zlib.error:
        return None


def _configurations(folder: Path, release: str) -> tuple[Path, ...]:
    names = (f"config-{release}", f"boot/config-{release}", ".config", "config")
    return tuple(folder / name for name in names)


def _of_release(file: Path, release: str) -> str | None:
    """The text of a configuration, if it is that kernel's: its head names a version."""
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"^# Linux/\S+ (\d[\w.]*)\S* Kernel Configuration$", text, re.M)
    return text if found and re.match(rf"{re.escape(found[1])}(?![\d.])", release) else None


def _configured(text: str, where: str) -> BuiltIn:
    options = set(re.findall(r"^CONFIG_(\w+)=y$", text, re.M))
    there = frozenset(name for name, option in _OPTIONS.items() if option in options)
    return BuiltIn(where, there, frozenset(_OPTIONS) - there)
