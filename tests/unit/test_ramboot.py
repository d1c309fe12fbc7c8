# SPDX-License-Identifier: MIT
"""The RAM image of the emulated Intel machine: what lies where, and what does not fit."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from l2gate.foundation.errors import KernelSpecError
from l2gate.hosts.emulated import ramboot
from l2gate.kernels.vmlinux import Segment, Vmlinux

MIB = 1 << 20


def machine(folder: Path, megabytes: int = 256) -> bytes:
    """A RAM image of a kernel of one page at 16 MiB; its bzImage says only what is asked of it."""
    plain, initrd, image = folder / "vmlinux", folder / "initrd", folder / "vmlinuz"
    plain.write_bytes(b"K" * 4096)
    initrd.write_bytes(b"I" * 4096)
    head = bytearray(0x1000)
    head[0x201] = 0x6A  # the setup header ends at 0x202 + this
    head[0x202:0x206] = b"HdrS"
    image.write_bytes(bytes(head))
    kernel = Vmlinux(plain, 16 * MIB + 0x40, (Segment(0, 16 * MIB, 4096, 2 * MIB),), pvh=True)
    ramboot.write(folder / "ram", image, kernel, initrd, "console=ttyS0", megabytes)
    return (folder / "ram").read_bytes()


def at(ram: bytes, physical: int, size: int) -> bytes:
    """Guest memory: behind the first block the file is one block further on."""
    place = physical if physical < ramboot.BLOCK else physical + ramboot.BLOCK
    return ram[place : place + size]


def test_the_handover_leads_to_all_the_rest(tmp_path: Path) -> None:
    ram = machine(tmp_path)
    magic, end, _, parameters, entry = struct.unpack("<5Q", at(ram, MIB, 40))
    assert at(ram, end, 8) == struct.pack("<Q", magic)
    assert entry == 16 * MIB + 0x40
    assert at(ram, 16 * MIB, 4) == b"KKKK"
    page = at(ram, parameters, 4096)
    place, size, words = (struct.unpack_from("<I", page, o)[0] for o in (0x218, 0x21C, 0x228))
    assert at(ram, place, size) == b"I" * 4096
    assert place >= 18 * MIB, "the initramfs lies in the kernel's own memory"
    assert at(ram, words, 14) == b"console=ttyS0\0"


def test_the_memory_map_ends_where_the_bios_has_its_tables(tmp_path: Path) -> None:
    page = at(machine(tmp_path), MIB + 4096, 4096)
    areas = [struct.unpack_from("<QQI", page, 0x2D0 + 20 * i) for i in range(page[0x1E8])]
    start, size, kind = areas[-1]
    assert (start + size, kind) == (256 * MIB, 3)
    assert any(kind == 1 and begin + length == start for begin, length, kind in areas)


def test_the_page_tables_map_memory_onto_itself(tmp_path: Path) -> None:
    ram = machine(tmp_path)
    tables = struct.unpack_from("<Q", at(ram, MIB, 40), 16)[0]
    leaf = struct.unpack("<Q", at(ram, tables + 2 * 4096 + 8 * 8, 8))[0]
    assert leaf & ~0xFFF == 8 * 2 * MIB


def test_a_kernel_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KernelSpecError, match="the emulated machine has 64 MB"):
        machine(tmp_path, megabytes=64)


def test_each_rom_adds_up_to_nothing() -> None:
    content = ramboot.rom(bytes(range(256)) * 6)
    assert sum(content[:512]) % 256 == 0
    assert sum(content[-512:]) % 256 == 0
