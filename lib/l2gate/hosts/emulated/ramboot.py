# SPDX-License-Identifier: MIT
"""What lies in the RAM of an emulated Intel machine at power-on: the kernel, unpacked, and all that
a boot loader would have handed it.

Source of the layout: Documentation/arch/x86/boot.rst (64-bit boot protocol) and zero-page.rst; how
the machine gets there: images/bochs/rom.S.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation.errors import KernelSpecError
from l2gate.kernels.vmlinux import Segment, Vmlinux

_PAGE = 4096
_MIB = 1 << 20
#: Sizes and places in bytes; images/bochs/rom.S knows the first.
_HANDOVER = 1 * _MIB
_PARAMETERS = _HANDOVER + 1 * _PAGE
_COMMAND_LINE = _HANDOVER + 2 * _PAGE
_PAGE_TABLES = _HANDOVER + 16 * _PAGE
_MAGIC = 0x6C32676174655231

#: The BIOS keeps its ACPI tables in the last 64 KiB (rombios32.c: ACPI_DATA_SIZE).
_ACPI = 0x10000
_EBDA = 0x9FC00
_RAM, _RESERVED, _ACPI_TYPE = 1, 2, 3

#: Bochs gives RAM out in blocks of this size, in the order in which they are first touched. The
#: BIOS touches the lowest and the highest before rom.S touches the others from the lowest up.
BLOCK = 8 * _MIB

_XLF_KERNEL_64 = 1
_CODE64_OFFSET = 0x200


@dataclass(frozen=True)
class _Loaded:
    """Pieces to lay down, the 64-bit entry, and the first byte behind all the kernel's memory."""

    pieces: tuple[tuple[int, bytes], ...]
    entry: int
    end: int


def write(
    target: Path, image: Path, plain: Vmlinux | None, initrd: Path, words: str, megabytes: int
) -> None:
    """Write the RAM image of a machine with ``megabytes`` of memory, a sparse file.

    ``image`` is the bzImage, ``plain`` what is inside it if that is known. Raises
    KernelSpecError if the kernel has no 64-bit entry or does not fit.
    """
    head = image.read_bytes()
    loaded = _plain(plain) if plain else _packed(image, head)
    disk = initrd.read_bytes()
    initrd_at = _up(loaded.end, 2 * _MIB)
    last = _up(initrd_at + len(disk), _PAGE)
    if last + 64 * _MIB > megabytes * _MIB:
        raise KernelSpecError(
            f"{image} and its initramfs need {last // _MIB} MB, the emulated machine has "
            f"{megabytes} MB",
            "use a smaller kernel",
        )
    parameters = _boot_params(head, initrd_at, len(disk), megabytes * _MIB)
    handover = struct.pack("<5Q", _MAGIC, last, _PAGE_TABLES, _PARAMETERS, loaded.entry)
    pieces = [
        *loaded.pieces,
        (_HANDOVER, handover),
        (_PARAMETERS, parameters),
        (_COMMAND_LINE, words.encode() + b"\0"),
        (_PAGE_TABLES, _identity_map()),
        (initrd_at, disk),
        (last, struct.pack("<Q", _MAGIC)),
    ]
    with target.open("wb") as file:
        for place, content in pieces:
            file.seek(place if place < BLOCK else place + BLOCK)
            file.write(content)


def _plain(kernel: Vmlinux) -> _Loaded:
    data = kernel.path.read_bytes()

    def bytes_of(segment: Segment) -> bytes:
        return data[segment.offset : segment.offset + segment.file_size]

    pieces = tuple((segment.physical, bytes_of(segment)) for segment in kernel.segments)
    end = max(segment.physical + segment.memory_size for segment in kernel.segments)
    return _Loaded(pieces, kernel.entry, end)


def _packed(image: Path, head: bytes) -> _Loaded:
    """A bzImage that only its own code can unpack: entered where the boot protocol says."""
    flags, (init_size,) = head[0x236], struct.unpack_from("<I", head, 0x260)
    if not flags & _XLF_KERNEL_64:
        raise KernelSpecError(f"{image} has no 64-bit entry", "build it with CONFIG_X86_64")
    (preferred,) = struct.unpack_from("<Q", head, 0x258)
    code = head[((head[0x1F1] or 4) + 1) * 512 :]
    return _Loaded(((preferred, code),), preferred + _CODE64_OFFSET, preferred + init_size)


def _boot_params(head: bytes, initrd_at: int, initrd_size: int, memory: int) -> bytes:
    """struct boot_params: the image's own setup header, and what a boot loader fills in."""
    page = bytearray(_PAGE)
    end = 0x202 + head[0x201]
    page[0x1F1:end] = head[0x1F1:end]
    page[0x210] = 0xFF  # type_of_loader: none that has a number
    struct.pack_into("<II", page, 0x218, initrd_at, initrd_size)
    struct.pack_into("<I", page, 0x228, _COMMAND_LINE)
    areas = (
        (0, _EBDA, _RAM),
        (_EBDA, 0xA0000, _RESERVED),
        (0xF0000, _MIB, _RESERVED),
        (_MIB, memory - _ACPI, _RAM),
        (memory - _ACPI, memory, _ACPI_TYPE),
    )
    page[0x1E8] = len(areas)
    for index, (start, stop, kind) in enumerate(areas):
        struct.pack_into("<QQI", page, 0x2D0 + 20 * index, start, stop - start, kind)
    return bytes(page)


def _identity_map() -> bytes:
    """Page tables that map the first 4 GiB onto themselves by pages of 2 MiB."""
    present_write, large = 0b11, 0b1000_0000
    directories = [_PAGE_TABLES + (2 + index) * _PAGE for index in range(4)]
    top = struct.pack("<Q", _PAGE_TABLES + _PAGE | present_write).ljust(_PAGE, b"\0")
    middle = b"".join(struct.pack("<Q", d | present_write) for d in directories).ljust(_PAGE, b"\0")
    leaves = b"".join(
        struct.pack("<Q", page * 2 * _MIB | present_write | large) for page in range(4 * 512)
    )
    return top + middle + leaves


def _up(number: int, unit: int) -> int:
    return (number + unit - 1) // unit * unit


def rom(code: bytes) -> bytes:
    """The ROM of images/bochs/rom.S with its checksums: each option ROM must add up to 0."""
    content = bytearray(code)
    for start in (0, len(content) - 512):
        content[start + 511] = -sum(content[start : start + 511]) & 0xFF
    return bytes(content)
