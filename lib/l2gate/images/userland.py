# SPDX-License-Identifier: MIT
"""The userland image: one read-only squashfs that L0 and L1 both run from.

Beside it lies a lean one, for an L1 on a lab host, which needs no QEMU for the tiny L2. The whole
one holds busybox, an SSH server, QEMU with its libraries and firmware, and what L0 needs to start
L1 and L1 to start a Linux L2. Its programs come from a suite root; nothing in it depends on the
kernel under test.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from l2gate.foundation import cache
from l2gate.foundation.debian import Root
from l2gate.foundation.errors import BenchError
from l2gate.foundation.events import Timeline
from l2gate.foundation.process import run
from l2gate.foundation.settings import checkout
from l2gate.images import initramfs
from l2gate.kernels.kernel import KernelUnderTest, closure, read_module
from l2gate.vendors.vendors import MODULES, VENDORS

_RECIPE = "9"
_LEAN = ("usr/sbin/dropbear",)
_PROGRAMS = ("usr/bin/qemu-system-x86_64", "usr/bin/qemu-system-x86_64-microvm", *_LEAN)
_BIOS = "usr/share/qemu/qboot.rom"
BIOS = f"/{_BIOS}"
_FIRMWARE = (
    "usr/share/qemu/kvmvapic.bin",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/qemu/pvh.bin",
    "usr/share/seabios/bios-microvm.bin",
    _BIOS,
)
#: What L1 needs beside its KVM: its disks and its network on virtio-mmio.
_L1_MODULES = ("virtio_mmio", "virtio_blk", "virtio_net", "squashfs")

#: What keeps a kernel of any level from doing what costs an emulated CPU seconds and has nothing to
#: do with KVM.
LEAN = (
    "tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests rcupdate.rcu_expedited=1 "
    "nokaslr mitigations=off rodata=off init_on_alloc=0 lsm= audit=0 ipv6.disable=1 "
    # A jitter measurement, the tracers' names, a power hint, the certificates of signed modules.
    "initcall_blacklist=jent_mod_init,trace_eval_init,init_kprobe_trace,intel_epb_init,"
    "load_system_certificate_list"
)

#: The kernel command line of L0 and L1. loglevel=5 shows a WARN and what is worse.
LINUX = f"console=ttyS0 loglevel=5 panic=-1 oops=panic net.ifnames=0 8250.nr_uarts=1 {LEAN}"

#: Where L1's and L2's own files lie inside the image.
L1_KERNEL = "/boot/guest/vmlinux"
L1_INITRD = "/boot/guest/l1.initrd"
L2_INITRD = "/boot/guest/l2.initrd"
QEMU = "/usr/bin/qemu-system-x86_64"
QEMU_SMALL = "/usr/bin/qemu-system-x86_64-microvm"


def recipe(name: str) -> Path:
    """A recipe file below images/."""
    return checkout() / "images" / name


#: How KVM is set if it is built in: it takes its parameters from the kernel's command line.
BUILT_IN = " ".join(f"{one.module}.{word}" for one in VENDORS for word in one.module_parameters)


def kvm_modules(kernel: KernelUnderTest) -> list[initramfs.Module]:
    """KVM and all vendors' modules with nested=1; init loads the one that the CPU has."""
    words = {vendor.module_file: " ".join(vendor.module_parameters) for vendor in VENDORS}
    modules = load_list(kernel, ("kvm", *MODULES))
    return [replace(m, parameters=words.get(m.name, "")) for m in modules]


def load_list(kernel: KernelUnderTest, names: tuple[str, ...]) -> list[initramfs.Module]:
    """The modules ``names`` of ``kernel``, dependencies first."""
    return [
        initramfs.Module(_plain(path.name), read_module(path)) for path in closure(kernel, names)
    ]


def _plain(name: str) -> str:
    return name[: name.index(".ko") + 3]


def build(root: Root, guest_kernel: KernelUnderTest, timeline: Timeline) -> Path:
    """The folder with userland.squashfs, lean.squashfs, l1.initrd and qboot.rom, made now if it
    was not before."""
    names = ("userland/init.sh", "userland/init-ram.sh", "userland/entropy.c", "l2/init.sh")
    recipes = [recipe(name) for name in names]
    key = cache.digest(_RECIPE, root.suite.key, guest_kernel.key, *recipes)

    def make(folder: Path) -> None:
        with timeline.step("controller", "building the userland image of L0 and L1"):
            _build(root, guest_kernel, folder)

    return cache.make("userland", key, make)


def _build(root: Root, guest_kernel: KernelUnderTest, folder: Path) -> None:
    busybox = root.path / "usr/bin/busybox"
    shutil.copy(root.path / _BIOS, folder / "qboot.rom")
    initrd = folder / "l1.initrd"
    modules = [*load_list(guest_kernel, _L1_MODULES), *kvm_modules(guest_kernel)]
    initramfs.pack(initrd, busybox, recipe("userland/init-ram.sh"), unique(modules))
    with _tree(root, _LEAN) as tree:
        _squash(tree, folder / "lean.squashfs")
    with _tree(root, _PROGRAMS) as tree:
        for blob in _FIRMWARE:
            _copy(root, tree, blob)
        boot = tree / "boot/guest"
        boot.mkdir(parents=True)
        shutil.copy(guest_kernel.fastest, tree / L1_KERNEL.lstrip("/"))
        shutil.copy(initrd, tree / L1_INITRD.lstrip("/"))
        initramfs.pack(tree / L2_INITRD.lstrip("/"), busybox, recipe("l2/init.sh"))
        _squash(tree, folder / "userland.squashfs")


@contextmanager
def _tree(root: Root, programs: tuple[str, ...]) -> Iterator[Path]:
    """A file system with busybox, ``programs``, and the init that L0 and L1 share."""
    with tempfile.TemporaryDirectory(prefix="l2gate-userland-") as name:
        tree = Path(name)
        places = ("dev", "proc", "sys", "tmp", "run", "root", "etc", "bin", "sbin", "var")
        for place in (*places, "usr/bin", "lib/modules"):
            (tree / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(root.path / "usr/bin/busybox", tree / "bin/busybox")
        _applets(root, tree)
        for program in programs:
            _copy(root, tree, program)
        for library in _libraries(root, programs):
            _copy(root, tree, library)
        (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (tree / "etc/group").write_text("root:x:0:\n")
        (tree / "etc/shells").write_text("/bin/sh\n")
        shutil.copy(recipe("userland/init.sh"), tree / "sbin/l2gate-init")
        (tree / "sbin/l2gate-init").chmod(0o755)
        _compile(recipe("userland/entropy.c"), tree / "sbin/l2gate-entropy")
        (tree / "sbin/init").symlink_to("../bin/busybox")
        (tree / "etc/inittab").write_text("::sysinit:/sbin/l2gate-init\n")
        yield tree


def unique(modules: list[initramfs.Module]) -> list[initramfs.Module]:
    """Each module once, at its first place: a dependency comes before what needs it."""
    first: dict[str, initramfs.Module] = {}
    for module in modules:
        first.setdefault(module.name, module)
    return list(first.values())


def _applets(root: Root, tree: Path) -> None:
    for applet in root.run(["busybox", "--list"]).stdout.split():
        link = tree / "bin" / applet
        if not link.exists():
            link.symlink_to("busybox")


def _compile(source: Path, target: Path) -> None:
    """A static program of one file: the image needs no library for it."""
    run(
        [
            "gcc",
            "-std=gnu11",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-static",
            "-o",
            target,
            source,
        ],
        what=f"compiling {source.name}",
        hint="run `make apt` for gcc and libc6-dev",
    )


def _libraries(root: Root, programs: tuple[str, ...]) -> list[str]:
    """The shared libraries that the programs are linked with, as ldd finds them."""
    listed = root.run(["ldd", *(f"/{program}" for program in programs)]).stdout
    words = {word for line in listed.splitlines() for word in line.split() if word[0] == "/"}
    return sorted(word.lstrip("/") for word in words if not word.endswith(":"))


def _copy(root: Root, tree: Path, name: str) -> None:
    source, target = root.path / name, tree / name
    if not source.exists():
        raise BenchError(f"the suite root has no /{name}", "remove the cache and run `make images`")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _squash(tree: Path, target: Path) -> None:
    """Uncompressed: an emulated CPU reads faster than it unpacks."""
    plain = ("-noI", "-noD", "-noF", "-noX")
    run(
        ["mksquashfs", tree, target, "-all-root", "-no-progress", "-quiet", *plain],
        what="packing the userland image",
        hint="check the free space of the cache and of the temporary folder",
    )
