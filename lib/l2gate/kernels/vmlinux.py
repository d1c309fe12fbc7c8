# SPDX-License-Identifier: MIT
"""The plain kernel inside a bzImage: an emulated CPU that need not unpack it boots seconds sooner.

Source of the layout: Documentation/arch/x86/boot.rst (setup_sects, payload_offset, payload_length).
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation import cache
from l2gate.foundation.errors import BenchError
from l2gate.foundation.process import run

_RECIPE = "2"
_PVH_ENTRY = 18  # XEN_ELFNOTE_PHYS32_ENTRY: the kernel can be started by QEMU's -kernel as an ELF
_PT_LOAD, _PT_NOTE = 1, 4


@dataclass(frozen=True)
class Segment:
    """A PT_LOAD of the kernel: where it lies in the file and in physical memory, in bytes."""

    offset: int
    physical: int
    file_size: int
    memory_size: int


@dataclass(frozen=True)
class Vmlinux:
    """An unpacked kernel. ``entry`` is the physical address of startup_64."""

    path: Path
    entry: int
    segments: tuple[Segment, ...]
    pvh: bool


def unpacked(image: Path) -> Vmlinux | None:
    """The kernel inside ``image``, kept in the cache; None if it is packed in a way not known."""
    data = image.read_bytes()
    key = cache.digest(_RECIPE, data)

    def make(folder: Path) -> None:
        # An empty file says that it was tried: the kernel then boots as it came.
        (folder / "vmlinux").write_bytes(_unpack(data) or b"")

    path = cache.make("vmlinux", key, make) / "vmlinux"
    return _read(path)


def _unpack(data: bytes) -> bytes | None:
    setup = ((data[0x1F1] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", data, 0x248)
    payload = data[setup + offset : setup + offset + length]
    try:
        plain = _plain(payload)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, BenchError):
        return None
    return plain if plain and plain[:5] == b"\x7fELF\x02" else None


def _plain(payload: bytes) -> bytes | None:
    """What is packed in it. The unpacked size follows in four bytes (arch/x86/boot/compressed:
    size_append), but for gzip, which has it as its own last four: who reads stops at the end of
    the packed data, and zstd, which would not, does not get them."""
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return run(["zstd", "-dcq"], what="unpacking a kernel", stdin=payload[:-4])
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    if payload.startswith(b"\x5d\0\0"):
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(payload)
    if payload.startswith(b"BZh"):
        return bz2.BZ2Decompressor().decompress(payload)
    return None


def _read(path: Path) -> Vmlinux | None:
    data = path.read_bytes()
    if not data:
        return None
    entry, headers = struct.unpack_from("<QQ", data, 24)
    size, count = struct.unpack_from("<HH", data, 54)
    segments, pvh = [], False
    for index in range(count):
        fields = struct.unpack_from("<IIQQQQQQ", data, headers + index * size)
        kind, _, offset, _, physical, file_size, memory_size, _ = fields
        if kind == _PT_LOAD:
            segments.append(Segment(offset, physical, file_size, memory_size))
        if kind == _PT_NOTE:
            pvh = pvh or _PVH_ENTRY in _xen_notes(data[offset : offset + file_size])
    return Vmlinux(path, entry, tuple(segments), pvh)


def _xen_notes(notes: bytes) -> Iterator[int]:
    """The types of the notes that carry the name Xen."""
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name = notes[at + 12 : at + 12 + name_size]
        if name == b"Xen\0":
            yield kind
        at += 12 + (name_size + 3 & ~3) + (size + 3 & ~3)
