# SPDX-License-Identifier: MIT
"""What a job has on a lab host is put away: `supervise`, and hosts/lab/kvm-module.sh."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from l2gate.foundation.settings import checkout

PATIENCE = 20.0  # seconds: far more than any step here takes


def eventually(true: Callable[[], bool]) -> bool:
    """Whether it comes true within our patience."""
    last = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > last:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    """Whether it runs: a zombie that nobody has waited for yet does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


# ---- supervise ----


class Supervisor:
    """One `supervise` process; its answers come one at a time."""

    def __init__(self, helper: Path, place: Path, *more: str, within: int = 60) -> None:
        self.folder = place / "job"
        self.log = place / "lock.log"
        self._buffer = b""
        command = [
            str(helper),
            "supervise",
            "--lock",
            str(place / "lock"),
            "--folder",
            str(self.folder),
        ]
        self.process = subprocess.Popen(
            [*command, "--within", str(within), *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )

    def say(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")

    def answer(self, within: float = PATIENCE) -> dict[str, Any]:
        """The next answer; {} if none comes within that time, or no more ever."""
        assert self.process.stdout
        last = time.monotonic() + within
        while b"\n" not in self._buffer:
            left = max(0.0, last - time.monotonic())
            if not select.select([self.process.stdout], [], [], left)[0]:
                return {}
            data = os.read(self.process.stdout.fileno(), 4096)
            if not data:
                return {}
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def start(self, line: str) -> int:
        self.say(f"start {line}")
        answer = self.answer()
        assert answer["type"] == "started"
        pid: int = answer["pid"]
        return pid

    def hang_up(self) -> None:
        """What a connection that is cut looks like from here."""
        for end in (self.process.stdin, self.process.stdout, self.process.stderr):
            if end:
                end.close()

    def ended(self) -> int:
        return self.process.wait(PATIENCE)


SupervisorMaker = Callable[..., Supervisor]


@pytest.fixture
def supervisor(helper: Path, tmp_path: Path) -> Iterator[SupervisorMaker]:
    made: list[Supervisor] = []

    def make(*more: str, within: int = 60) -> Supervisor:
        made.append(Supervisor(helper, tmp_path, *more, within=within))
        return made[-1]

    yield make
    for job in made:
        with contextlib.suppress(ProcessLookupError):
            job.process.kill()
        job.process.wait()
        job.hang_up()


def test_it_takes_lock_and_folder_and_gives_both_back(supervisor: SupervisorMaker) -> None:
    job = supervisor("--exclusive")
    assert job.answer() == {"type": "ready", "pid": job.process.pid}
    assert stat.S_IMODE(job.folder.stat().st_mode) == 0o700
    (job.folder / "sub").mkdir()
    (job.folder / "sub/file").touch()
    (job.folder / "link").symlink_to("/etc")
    assert job.process.stdin
    job.process.stdin.close()
    assert job.ended() == 0
    assert not job.folder.exists()
    assert Path("/etc").is_dir()
    assert supervisor("--exclusive").answer()["type"] == "ready"


def test_an_exclusive_one_waits_and_names_the_holder(supervisor: SupervisorMaker) -> None:
    first = supervisor("--exclusive", "--who", "the first job")
    assert first.answer()["type"] == "ready"
    second = supervisor("--exclusive", within=60)
    answer = second.answer()
    assert answer["type"] == "waiting"
    assert answer["holder"].startswith(f"the first job, pid {first.process.pid}, since 2")
    second.say("start true")
    assert second.answer()["type"] == "error"
    assert first.process.stdin
    first.process.stdin.close()
    assert first.ended() == 0
    assert second.answer()["type"] == "ready"


def test_one_that_waits_ends_with_its_stdin_and_touches_nothing(
    supervisor: SupervisorMaker,
) -> None:
    first = supervisor("--exclusive")
    assert first.answer()["type"] == "ready"
    second = supervisor("--exclusive", "--finally", f"touch {first.folder}/wrong")
    assert second.answer()["type"] == "waiting"
    assert second.process.stdin
    second.process.stdin.close()
    assert second.ended() == 1
    assert list(first.folder.iterdir()) == []


def test_a_shared_lock_is_shared(supervisor: SupervisorMaker) -> None:
    first, second = supervisor(), supervisor()
    assert first.answer()["type"] == second.answer()["type"] == "ready"
    third = supervisor("--exclusive")
    assert third.answer()["type"] == "waiting"


def test_a_child_starts_and_ends(supervisor: SupervisorMaker, tmp_path: Path) -> None:
    job = supervisor()
    assert job.answer()["type"] == "ready"
    job.say("")
    pid = job.start(f"ls -l /proc/self/fd >{tmp_path}/fds; echo $$ >{tmp_path}/pid; exit 7")
    assert job.answer() == {"type": "ended", "pid": pid, "status": 7}
    assert int((tmp_path / "pid").read_text()) == pid
    assert str(tmp_path / "lock") not in (tmp_path / "fds").read_text()
    pid = job.start("trap '' TERM; kill -KILL $$")
    assert job.answer() == {"type": "ended", "pid": pid, "status": 128 + signal.SIGKILL}
    job.say("stop")
    assert job.answer()["type"] == "error"
    job.say("begone")
    assert job.answer()["what"] == "cannot do begone"


def test_stop_leaves_nothing_of_the_child(supervisor: SupervisorMaker, tmp_path: Path) -> None:
    job = supervisor()
    assert job.answer()["type"] == "ready"
    note = tmp_path / "others"
    others = "sleep 99 & echo $!; setsid sleep 99 & echo $!"
    pid = job.start(f"{{ {others}; }} >{note}.new; mv {note}.new {note}; wait")
    assert eventually(note.exists)
    job.say("start true")
    assert job.answer()["name"] == "EBUSY"
    pids = [int(line) for line in note.read_text().split()]
    assert len(pids) == 2
    assert all(alive(one) for one in pids)
    job.say("stop")
    assert job.answer() == {"type": "ended", "pid": pid, "status": 128 + signal.SIGKILL}
    assert not any(alive(one) for one in pids)


@pytest.mark.parametrize("signo", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE])
def test_signals_of_a_connection_do_not_end_it(
    supervisor: SupervisorMaker, signo: signal.Signals
) -> None:
    job = supervisor()
    assert job.answer()["type"] == "ready"
    job.process.send_signal(signo)
    pid = job.start(f"kill -{signo.value} $$; sleep 9")  # but the child takes them
    assert job.answer() == {"type": "ended", "pid": pid, "status": 128 + signo}


def test_a_cut_connection_ends_all(supervisor: SupervisorMaker, tmp_path: Path) -> None:
    done = tmp_path / "done"
    job = supervisor("--exclusive", "--finally", f"echo words; ls {tmp_path}/job >{done}; exit 3")
    assert job.answer()["type"] == "ready"
    pid = job.start("while :; do echo chatter; done")
    (job.folder / "file").touch()
    job.hang_up()
    assert job.ended() == 1  # as the command said 3
    assert not alive(pid)
    assert done.read_text() == "file\n"  # the command comes before the folder goes
    assert not job.folder.exists()
    assert "words\n" in job.log.read_text()
    assert "ended with status 3" in job.log.read_text()
    assert supervisor("--exclusive").answer()["type"] == "ready"


def test_a_reader_who_is_gone_ends_it(supervisor: SupervisorMaker) -> None:
    job = supervisor()
    assert job.answer()["type"] == "ready"
    assert job.process.stdout
    job.process.stdout.close()
    assert job.ended() == 0
    assert not job.folder.exists()


def test_silence_ends_it_but_signs_of_life_do_not(
    supervisor: SupervisorMaker, tmp_path: Path
) -> None:
    job = supervisor("--finally", f"echo words; touch {tmp_path}/done", within=1)
    assert job.answer()["type"] == "ready"
    pid = job.start("sleep 99")
    for _ in range(8):
        time.sleep(0.25)
        job.say("")
    assert alive(pid)
    assert job.ended() == 0
    assert not alive(pid)
    assert (tmp_path / "done").exists()
    assert not job.folder.exists()
    assert job.process.stderr
    errors = job.process.stderr.read().decode()
    assert "no line came for 1 seconds" in errors
    assert "words\n" in errors


def test_the_child_dies_with_a_supervisor_that_is_killed(supervisor: SupervisorMaker) -> None:
    job = supervisor("--exclusive")
    assert job.answer()["type"] == "ready"
    pid = job.start("exec sleep 99")
    job.process.kill()
    assert eventually(lambda: not alive(pid))
    again = supervisor("--exclusive")  # the folder that was left is taken over
    assert again.answer()["type"] == "ready"


def test_a_folder_that_cannot_be_ours_is_refused(
    supervisor: SupervisorMaker, tmp_path: Path
) -> None:
    (tmp_path / "job").symlink_to("/tmp")
    job = supervisor()
    assert job.answer()["what"] == f"{tmp_path}/job is not a folder of ours"
    assert job.ended() == 1


# ---- kvm-module.sh ----

SCRIPT = checkout() / "lib/l2gate/hosts/lab/kvm-module.sh"

# Stands for modprobe, rmmod and the programs that write, and counts their calls. At the call that
# $FAKE/kill-at names it kills the script with all that it runs: before it works, or after.
FAKE_PROGRAM = r"""#!/bin/sh
at() {
	[ -e "$FAKE/kill-at" ] && [ "$(cat "$FAKE/kill-at")" = "$count.$1" ] || return 0
	touch "$FAKE/killed"
	kill -KILL 0
}
count=$(($(cat "$FAKE/count") + 1))
echo $count >"$FAKE/count"
name=${0##*/}
PATH=/usr/bin:/bin
at before
module=${1:-}
place=$L2GATE_SYS/module/$module
case $name in
modprobe)
	if [ "$module" = -D ]; then
		if [ ! -e "$FAKE/gone" ]; then
			echo "insmod $FAKE/defaults nested=0"
			at after
			exit 0
		fi
		if [ "$(cat "$FAKE/gone")" = file ]; then echo "insmod $FAKE/nowhere"; exit; fi
		echo "modprobe: FATAL: Module $2 not found" >&2
		exit 1
	fi
	echo "modprobe $*" >>"$FAKE/calls"
	shift
	if [ -e "$FAKE/fail" ]; then
		echo "modprobe: ERROR: could not insert '$module': Operation not supported" >&2
		exit 1
	fi
	if [ ! -d "$place" ]; then
		mkdir -p "$place/parameters" "$L2GATE_SYS/module/kvm"
		echo 0 >"$place/refcnt"
		echo 1 >"$L2GATE_SYS/module/kvm/refcnt"
		for option in $(cat "$FAKE/defaults" "$FAKE/modprobe.d") "$@"; do
			text=${option#*=}
			case $option in nested=1) text=Y ;; nested=0) text=N ;; esac
			echo "$text" | tr _ ' ' >"$place/parameters/${option%%=*}"
		done
		if [ -e "$FAKE/stubborn" ]; then echo N >"$place/parameters/nested"; fi
		case $(cat "$place/parameters/nested") in
		Y) echo N >"$place/parameters/enable_shadow_vmcs" ;;
		esac
	fi
	;;
rmmod)
	echo "rmmod $*" >>"$FAKE/calls"
	if [ "$(cat "$place/refcnt")" != 0 ]; then
		echo "rmmod: ERROR: Module $module is in use" >&2
		exit 1
	fi
	rm -r "$place"
	[ "$module" = kvm ] || echo 0 >"$L2GATE_SYS/module/kvm/refcnt"
	;;
*) "$name" "$@" || exit ;;
esac
at after
"""


@dataclass
class FakeHost:
    """A /sys and /proc of files, and the programs that change them."""

    place: Path
    module: str = "kvm_intel"
    defaults: dict[str, str] = field(
        default_factory=lambda: {
            "nested": "N",
            "ept": "Y",
            "ple_gap": "128",
            "enable_shadow_vmcs": "Y",
            "vmentry_l1d_flush": "not_required",  # the fake modprobe makes the _ a blank
        }
    )

    def __post_init__(self) -> None:
        for folder in ("sys/module", "proc/sys/kernel/random", "bin", "fake"):
            (self.place / folder).mkdir(parents=True)
        flag = {"kvm_intel": "vmx", "kvm_amd": "svm"}.get(self.module, "fpu")
        (self.place / "proc/cpuinfo").write_text(f"model\t: 1\nflags\t\t: fpu {flag} sse\n")
        self.boot("first")
        for name in ("modprobe", "rmmod", "mv", "sync", "rm"):
            program = self.place / "bin" / name
            program.write_text(FAKE_PROGRAM)
            program.chmod(0o755)
        self.fake("defaults", *(f"{name}={value}" for name, value in self.defaults.items()))
        self.fake("modprobe.d")
        self.fake("count", "0")

    @property
    def note(self) -> Path:
        return self.place / "notes/former-module"

    @property
    def state(self) -> dict[str, str]:
        """What there is now, but for the counts of users."""
        return {
            str(path.relative_to(self.place)): path.read_text().strip()
            for path in sorted((self.place / "sys").rglob("*"))
            if path.is_file() and path.name != "refcnt"
        } | {path.name: "" for path in (self.place / "sys/module").iterdir()}

    @property
    def calls(self) -> list[str]:
        return (self.place / "fake/calls").read_text().splitlines()

    def boot(self, name: str) -> None:
        (self.place / "proc/sys/kernel/random/boot_id").write_text(f"{name}\n")

    def fake(self, name: str, *lines: str) -> None:
        (self.place / "fake" / name).write_text("".join(f"{line}\n" for line in lines))

    def load(self, **parameters: str) -> None:
        """As somebody has done it before."""
        module = self.place / "sys/module" / self.module
        (module / "parameters").mkdir(parents=True)
        (module / "refcnt").write_text("0\n")
        (module.parent / "kvm").mkdir()
        (module.parent / "kvm/refcnt").write_text("1\n")
        for name, value in (self.defaults | parameters).items():
            (module / "parameters" / name).write_text(value.replace("_", " ") + "\n")

    def use(self, count: int) -> None:
        (self.place / "sys/module" / self.module / "refcnt").write_text(f"{count}\n")

    def value(self, name: str) -> str:
        return (self.place / "sys/module" / self.module / "parameters" / name).read_text().strip()

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.place}/bin:{os.environ['PATH']}",
            "FAKE": f"{self.place}/fake",
            "L2GATE_SYS": f"{self.place}/sys",
            "L2GATE_PROC": f"{self.place}/proc",
            "L2GATE_USERS_WAIT": "0",
        }
        shell = os.environ.get("L2GATE_TEST_SHELL", "sh").split()  # dash, bash --posix
        return subprocess.run(
            [*shell, str(SCRIPT), str(self.note.parent), verb],
            env=environment,
            text=True,
            capture_output=True,
            start_new_session=True,
            timeout=PATIENCE,
        )

    def says(self, verb: str) -> list[str]:
        ended = self.run(verb)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        return ended.stdout.splitlines()

    def refuses(self, verb: str) -> tuple[str, str]:
        """Cause and hint."""
        ended = self.run(verb)
        assert ended.returncode == 2, ended.stdout
        cause, hint = ended.stderr.splitlines()
        assert cause.startswith("cause: ")
        assert hint.startswith("hint: ")
        return cause.removeprefix("cause: "), hint.removeprefix("hint: ")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def test_nested_is_switched_on_and_back(host: FakeHost) -> None:
    host.load(ple_gap="64")  # a plain modprobe sets 128
    before = host.state
    assert host.says("nested") == ["changed nested N Y"]
    assert (host.value("nested"), host.value("ple_gap")) == ("Y", "64")
    assert host.value("vmentry_l1d_flush") == "not required"
    assert host.says("status") == [
        "module kvm_intel",
        "loaded yes",
        "nested Y",
        "users 0",
        "note yes",
    ]
    assert host.says("restore") == ["restored nested N"]
    assert host.state == before
    assert not host.note.exists()
    assert host.says("restore") == ["nothing-to-restore"]


def test_one_load_is_enough_where_modprobe_sets_the_same(host: FakeHost) -> None:
    host.load()
    assert host.says("nested") == ["changed nested N Y"]
    assert host.calls == ["rmmod kvm_intel", "modprobe kvm_intel nested=1"]


def test_modprobe_settings_do_not_win_over_the_former_state(host: FakeHost) -> None:
    host.fake("modprobe.d", "nested=1", "ept=N")
    host.load()
    before = host.state
    assert host.says("nested") == ["changed nested N Y"]
    assert host.value("ept") == "Y"
    assert host.says("restore") == ["restored nested N"]
    assert host.state == before


def test_nested_that_is_on_is_left_alone(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, "kvm_amd", {"nested": "1", "npt": "Y"})
    host.load()
    host.use(3)
    assert host.says("nested") == ["unchanged"]
    assert not host.note.exists()


def test_a_module_that_was_not_loaded_is_unloaded_again(host: FakeHost) -> None:
    before = host.state
    assert host.says("status")[1:4] == ["loaded no", "nested absent", "users absent"]
    assert host.says("nested") == ["changed nested absent Y"]
    assert host.says("restore") == ["restored nested absent"]
    assert host.calls[-2:] == ["rmmod kvm_intel", "rmmod kvm"]
    assert host.state == before


def test_a_module_in_use_is_not_touched(host: FakeHost) -> None:
    host.load()
    host.use(2)
    process = host.place / "proc/4711"
    (process / "fd").mkdir(parents=True)
    (process / "fd/9").symlink_to("anon_inode:kvm-vm")
    (process / "comm").write_text("qemu-system-x86\n")
    assert "kvm_intel is in use (2) by 4711 (qemu-system-x86)" in host.refuses("nested")
    assert not host.note.exists()
    host.use(0)
    assert host.says("nested") == ["changed nested N Y"]
    host.use(1)
    assert "4711 (qemu-system-x86)" in host.refuses("restore")[0]
    assert host.note.exists()
    host.use(0)
    assert host.says("restore") == ["restored nested N"]


@pytest.mark.parametrize("what", ["file", "all"])
def test_a_module_that_could_not_be_loaded_again_stays(host: FakeHost, what: str) -> None:
    host.load()
    before = host.state
    host.fake("gone", what)
    assert host.refuses("nested")[0].startswith("modprobe could not load kvm_intel: ")
    assert host.state == before
    assert not host.note.exists()


def test_a_built_in_module_is_refused(host: FakeHost) -> None:
    host.load()
    (host.place / "sys/module/kvm_intel/refcnt").unlink()
    assert host.says("status")[1] == "loaded builtin"
    assert host.refuses("nested")[1] == "boot the host with kvm_intel.nested=1"


def test_a_cpu_without_virtualization_is_refused(tmp_path: Path) -> None:
    assert FakeHost(tmp_path, "none").refuses("status")[0].startswith("the CPU offers neither")


def test_a_note_of_another_boot_is_void(host: FakeHost) -> None:
    host.load()
    assert host.says("nested") == ["changed nested N Y"]
    host.boot("second")
    assert host.says("restore") == ["rebooted-since"]
    assert not host.note.exists()
    assert host.value("nested") == "Y"


def test_nested_after_a_job_that_never_restored(host: FakeHost) -> None:
    host.load(ple_gap="64")
    assert host.says("nested") == ["changed nested N Y"]
    assert host.says("nested") == ["restored nested N", "changed nested N Y"]
    assert host.value("ple_gap") == "64"


@pytest.mark.parametrize("how", ["fail", "stubborn"])
def test_what_fails_is_put_back(host: FakeHost, how: str) -> None:
    host.load()
    before = host.state
    host.fake(how)
    cause, hint = host.refuses("nested")
    if how == "fail":  # then nothing can be loaded again either
        assert "Operation not supported" in cause
        assert "dmesg" in hint
        assert host.note.exists()
        (host.place / "fake/fail").unlink()
        assert host.says("restore") == ["restored nested N"]
    else:
        assert cause == "kvm_intel was loaded with nested=1, but nested is N"
    assert host.state == before
    assert not host.note.exists()


def test_words_of_the_kernel_are_no_option(host: FakeHost) -> None:
    host.load(vmentry_l1d_flush="EPT disabled")
    cause, _ = host.refuses("nested")
    assert "take these parameters back: vmentry_l1d_flush EPT disabled" in cause
    assert not any("disabled" in call for call in host.calls)
    assert host.note.exists()


@pytest.mark.parametrize("was_loaded", [True, False])
@pytest.mark.parametrize("verb", ["nested", "restore"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_end_at_any_step_can_be_made_good(
    tmp_path: Path, was_loaded: bool, verb: str, when: str
) -> None:
    for step in range(1, 99):
        host = FakeHost(tmp_path / str(step))
        if was_loaded:
            host.load(ple_gap="64")
        before = host.state
        if verb == "restore":
            assert host.says("nested")
        host.fake("count", "0")
        host.fake("kill-at", f"{step}.{when}")
        ended = host.run(verb)
        if not (host.place / "fake/killed").exists():
            assert ended.returncode == 0
            assert step > 3  # at least so many calls have been cut short
            return
        assert ended.returncode == -signal.SIGKILL
        assert host.says("restore")[0].split()[0] in {"restored", "nothing-to-restore"}
        assert host.state == before
        assert not host.note.exists()
    pytest.fail("it never came to its end")
