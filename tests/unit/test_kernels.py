"""Kernel specs: what is meant, and what is refused before anything boots."""

from __future__ import annotations

from pathlib import Path

import pytest
from l2gate.errors import KernelSpecError
from l2gate.kernels.kernel import KernelUnderTest, closure, known
from l2gate.kernels.spec import DebianSpec, DirSpec, parse


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


def test_a_patch_of_one_s_own_comes_after_a_variant(tmp_path: Path) -> None:
    mine = tmp_path / "mine.patch"
    mine.write_text("why\n--- a/arch/x86/kvm/x86.c\n+++ b/arch/x86/kvm/x86.c\n@@ -1 +1 @@\n")
    assert patches(f"debian:6.12+unpatched+{mine}") == ["era.patch", "mine.patch"]


@pytest.mark.parametrize(
    "text",
    ["", "debian", "debian:1.0", "debian:6.12+odd", "debian:6.12+no.patch", "dir:/no", "x:y"],
)
def test_what_names_nothing_is_refused_with_a_mend(text: str) -> None:
    with pytest.raises(KernelSpecError) as refused:
        parse(text)
    assert refused.value.mend


def test_a_patch_outside_kvm_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.patch"
    mine.write_text("--- a/mm/mmap.c\n+++ b/mm/mmap.c\n@@ -1 +1 @@\n")
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
    with pytest.raises(KernelSpecError, match="no x86 kernel image"):
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
    with pytest.raises(KernelSpecError, match="no e1000"):
        closure(tree(tmp_path / "m"), ("e1000",))


def test_each_named_kernel_says_what_it_proves() -> None:
    listed = dict(known())
    assert "28d06353" in listed["debian:6.12+patched"]
    assert all(listed.values())
