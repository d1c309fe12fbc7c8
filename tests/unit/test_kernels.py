# SPDX-License-Identifier: MIT
"""Kernel specs: what is meant, and what is refused before anything boots."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from l2gate.foundation.errors import KernelSpecError
from l2gate.foundation.events import Timeline
from l2gate.hosts.emulated.machine import fitness
from l2gate.kernels import vmlinux
from l2gate.kernels.kernel import KernelUnderTest, closure, known, prepare, untold
from l2gate.kernels.spec import DebianSpec, DirSpec, parse
from l2gate.kernels.vmlinux import Vmlinux


def bzimage(path: Path, release: str = "7.7.7") -> Path:
    """As much of a bzImage as tells its release (Documentation/arch/x86/boot.rst)."""
    head = bytearray(0x1000)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x600).to_bytes(2, "little")
    text = f"{release} (me@here) #1\0".encode()
    head[0x800 : 0x800 + len(text)] = text
    path.write_bytes(bytes(head))
    return path


def patches(text: str) -> list[str]:
    spec = parse(text)
    assert isinstance(spec, DebianSpec)
    return [patch.path.name for patch in spec.patches]


def test_the_pair_differs_by_the_commit_alone() -> None:
    assert patches("debian:6.12") == []
    assert patches("debian:6.12+unpatched") == ["era.patch"]
    assert patches("debian:6.12+patched") == ["era.patch", "commit.patch"]


def test_a_series_that_lacks_its_patches_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever adds one registers it first."""
    monkeypatch.setattr("l2gate.kernels.spec.recipes", lambda series: tmp_path / series)
    for ask in (known, lambda: parse("debian:6.12+patched")):
        with pytest.raises(KernelSpecError, match=r"there is no patch .*6\.12/era\.patch"):
            ask()


PATCH = """why
--- a/arch/x86/kvm/x86.c
+++ b/arch/x86/kvm/x86.c
@@ -1 +1 @@
-old
+new
"""


@pytest.mark.parametrize(
    "name",
    [
        "mine.patch",
        "mine.diff",
        "series.mbox",
        "letter.eml",
        "no suffix",
        "c++/fix.patch",
        "+/a+b",
        "a+unpatched",
        "für Jörg/fix (2).patch",
        "a:b.patch",
    ],
)
def test_a_patch_may_have_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text(PATCH)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in (str(mine), name, f"./{name}", f"~/{name}"):
        for spec in (f"debian:6.12+unpatched+{path}", f"debian:6.12+{path}+unpatched"):
            assert sorted(patches(spec)) == sorted(["era.patch", mine.name])


def test_pluses_belong_to_the_longest_path_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "a+b", "patched"):
        Path(name).write_text(PATCH)
    assert patches("debian:6.12+a+b") == ["a+b"]
    assert patches("debian:6.12+b+a") == ["b", "a"]
    assert patches("debian:6.12+a+b+b") == ["a+b", "b"]
    assert patches("debian:6.12+patched") == ["era.patch", "commit.patch"]
    assert patches("debian:6.12+./patched") == ["patched"]


@pytest.mark.parametrize(
    "text",
    ["", "debian", "debian:1.0", "debian:6.12+odd", "debian:6.12+no.patch", "dir:/no", "x:y"],
)
def test_what_names_nothing_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(KernelSpecError) as refused:
        parse(text)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("text", "cause", "hint"),
    [
        ("debian:6.13", "no Debian suite is known for kernel 6.13", "debian:6.12, debian:6.1"),
        ("debian:trixie", "not by trixie", "use debian:6.12"),
        ("debian:6.12+unpached", "no variant and there is no file 'unpached'", "mean unpatched?"),
        ("debian:6.12+patchd+unpatched", "no file 'patchd'", "mean patched?"),
        ("debian:6.12+c++/fix.ptch", "no file 'c++/fix.ptch'", "mean c++/fix.patch?"),
        ("debian:6.12+c++/fix.ptch+unpatched", "no file 'c++/fix.ptch'", "mean c++/fix.patch?"),
        ("debian:6.12+unpatched+fix.patch", "no file 'fix.patch'", "path of a patch"),
        ("debian:6.12+~nobody-here/x.patch", "no file '~nobody-here/x.patch'", "path of a patch"),
        ("debian:6.12+", "has nothing after a plus", "leave the plus out"),
        ("debian:6.12+patched+", "has nothing after a plus", "leave the plus out"),
        ("debian:6.12++patched", "has nothing after a plus", "leave the plus out"),
        ("debian:6.12+c++", "c++ is a folder", "name a file"),
        ("debian:6.12+/dev/null", "/dev/null is a pipe or a device", "name a file"),
        (f"debian:6.12+{'x' * 300}", "File name too long", "name a file"),
    ],
)
def test_a_slip_is_answered_with_the_nearest_name(
    text: str, cause: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c++").mkdir()
    (tmp_path / "c++/fix.patch").write_text(PATCH)
    with pytest.raises(KernelSpecError) as refused:
        parse(text)
    assert cause in refused.value.cause
    assert hint in refused.value.hint


def test_a_patch_outside_kvm_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.patch"
    mine.write_text(PATCH.replace("arch/x86/kvm/x86.c", "mm/mmap.c"))
    with pytest.raises(KernelSpecError, match=r"mm/mmap\.c"):
        parse(f"debian:6.12+{mine}")


def test_a_folder_with_an_image_and_its_modules(tmp_path: Path) -> None:
    image = bzimage(tmp_path / "bzImage")
    assert parse(f"dir:{tmp_path}") == DirSpec(f"dir:{tmp_path}", image, None)
    modules = tmp_path / "lib/modules/7.7.7"
    modules.mkdir(parents=True)
    assert parse(f"dir:{tmp_path}") == DirSpec(f"dir:{tmp_path}", image, modules)
    modules.rename(tmp_path / "lib/modules/6.6.6")
    with pytest.raises(KernelSpecError, match=r"is kernel 7\.7\.7.*6\.6\.6"):
        parse(f"dir:{tmp_path}")


def test_a_broken_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(b"\x7fELF" + bytes(2000))
    with pytest.raises(KernelSpecError, match="not an x86 kernel image"):
        parse(f"dir:{tmp_path}")


def tree(folder: Path) -> KernelUnderTest:
    folder.mkdir()
    (folder / "modules.dep").write_text(
        "kernel/kvm/kvm.ko.xz: kernel/lib/irqbypass.ko.xz\n"
        "kernel/kvm/kvm-amd.ko.xz: kernel/ccp.ko.xz kernel/kvm/kvm.ko.xz "
        "kernel/lib/irqbypass.ko.xz\n"
        "kernel/ccp.ko.xz:\nkernel/lib/irqbypass.ko.xz:\n"
    )
    (folder / "modules.builtin").write_text("kernel/fs/squashfs/squashfs.ko\n")
    rebuilt = {"kvm.ko": folder / "mine/kvm.ko"}
    return KernelUnderTest("s", "7.7.7", folder / "vmlinuz", folder, "d", "k", rebuilt)


def test_modules_come_after_what_they_need_and_rebuilt_ones_replace(tmp_path: Path) -> None:
    kernel = tree(tmp_path / "m")
    names = [p.name for p in closure(kernel, ("squashfs", "kvm_intel", "kvm_amd"))]
    assert names == ["irqbypass.ko.xz", "kvm.ko", "ccp.ko.xz", "kvm-amd.ko.xz"]


def test_a_kernel_that_lacks_a_module_is_refused(tmp_path: Path) -> None:
    kernel = tree(tmp_path / "m")
    with pytest.raises(KernelSpecError, match="nor as a module: e1000 sd_mod "):
        closure(kernel, ("e1000", "kvm", "sd_mod", "squashfs"))


def test_a_vendor_s_module_may_be_missing_as_long_as_there_is_one(tmp_path: Path) -> None:
    kernel = tree(tmp_path / "m")
    assert closure(kernel, ("kvm", "kvm_intel", "kvm_amd"))
    dep = tmp_path / "m/modules.dep"
    dep.write_text(dep.read_text().replace("kvm-amd", "other"))
    with pytest.raises(KernelSpecError, match="nor as a module: kvm_intel kvm_amd "):
        closure(kernel, ("kvm", "kvm_intel", "kvm_amd"))


# --- what is built in -----------------------------------------------------------------------------

NEEDED = ("ata_piix", "squashfs", "kvm", "kvm_intel", "kvm_amd")
CONFIG = """#
# Linux/x86 7.7.7 Kernel Configuration
#
CONFIG_ATA_PIIX=y
CONFIG_SQUASHFS=m
# CONFIG_KVM_INTEL is not set
CONFIG_KVM=y
CONFIG_KVM_AMD=y
"""
#: An image that holds every name says nothing.
NAMES = b"ata_piix\0scsi_disk\0e1000\0squashfs\0kvm-vm\0kvm_amd: %d\0"


def own(
    folder: Path, image: bytes | None, monkeypatch: pytest.MonkeyPatch, release: str = "7.7.7"
) -> KernelUnderTest:
    """A kernel of the user's own without modules, whose unpacked image is that."""
    bzimage(folder / "vmlinuz", release)
    plain = folder.parent / "plain"
    plain.write_bytes(image or b"")
    found = Vmlinux(plain, 0, (), pvh=True) if image else None
    monkeypatch.setattr(vmlinux, "unpacked", lambda _: found)
    return prepare(f"dir:{folder}", Timeline())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_an_image_without_a_driver_s_name_lacks_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = own(home, NAMES.replace(b"squashfs", b"romfs"), monkeypatch)
    with pytest.raises(KernelSpecError, match=r"nor as a module: squashfs \(its image does not"):
        closure(kernel, NEEDED)
    kernel = own(home, NAMES.replace(b"kvm_amd", b"kvm"), monkeypatch)
    with pytest.raises(KernelSpecError, match="nor as a module: kvm_intel kvm_amd "):
        closure(kernel, NEEDED)


@pytest.mark.parametrize("image", [NAMES, None])
def test_what_only_a_boot_can_tell_is_said_so(
    image: bytes | None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = own(home, image, monkeypatch)
    assert closure(kernel, NEEDED) == ()
    assert {"ata_piix", "squashfs", "kvm", "kvm_amd"} <= set(untold(kernel, NEEDED))
    assert "cannot be told before it is booted" in fitness(kernel)


@pytest.mark.parametrize(
    "place", ["image", "config", ".config", "config-7.7.7", "boot/config-7.7.7", "modules.builtin"]
)
def test_what_is_built_in_is_read_where_it_is_told(
    place: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(text: str) -> KernelUnderTest:
        inside = b"IKCFG_ST" + gzip.compress(text.encode()) + b"IKCFG_ED"
        file = home / place
        if place == "modules.builtin":
            pairs = {"ATA_PIIX=y": "a/ata_piix.ko", "SQUASHFS=y": "squashfs.ko",
                     "KVM=y": "kvm.ko", "KVM_AMD=y": "k/kvm-amd.ko"}  # fmt: skip
            text = "\n".join(name for option, name in pairs.items() if f"G_{option}" in text)
        if place != "image":
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        return own(home, NAMES + (inside if place == "image" else b""), monkeypatch)

    with pytest.raises(KernelSpecError, match="nor as a module: squashfs "):
        closure(tell(CONFIG), NEEDED)
    kernel = tell(CONFIG.replace("SQUASHFS=m", "SQUASHFS=y"))
    assert closure(kernel, NEEDED) == ()
    assert untold(kernel, NEEDED) == []


def test_the_configuration_of_another_kernel_says_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "config").write_text(CONFIG)
    kernel = own(home, NAMES, monkeypatch, release="7.7.71")
    assert "squashfs" in untold(kernel, NEEDED)
    assert untold(own(home, NAMES, monkeypatch, release="7.7.7-rc1+"), NEEDED) == []


def test_each_named_kernel_says_what_it_proves() -> None:
    listed = dict(known())
    assert "28d06353" in listed["debian:6.12+patched"]
    assert all(listed.values())
