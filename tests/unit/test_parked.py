# SPDX-License-Identifier: MIT
"""Parking a machine and forking it, on a Bochs that has a ROM, a disk and a network, and no kernel:
it counts, reads the disk's sector of that number, and tells both on its serial port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, MissingPrerequisite
from l2gate.foundation.settings import Settings
from l2gate.hosts.emulated import bochsprogram, parked, ramboot
from l2gate.hosts.emulated.bochs import listens
from l2gate.hosts.emulated.bochsprogram import MODEL, Bochs, Terminal, common, quoted
from l2gate.hosts.emulated.parked import Forked, Link, Parked, memory

PATIENCE = 60.0  # seconds: far more than any step here takes
SECTORS = 16 * 63  # one cylinder
ROM = """
	.code16
	.byte 0x55, 0xaa, 1
	cli
	mov $0x3fb, %dx		# line control: divisor 1
	mov $0x80, %al
	outb %al, %dx
	mov $0x3f9, %dx
	xor %al, %al
	outb %al, %dx
	mov $0x3f8, %dx
	inc %al
	outb %al, %dx
	mov $0x3fb, %dx
	mov $3, %al
	outb %al, %dx
	xor %bp, %bp
count:	inc %bp
	mov $0x1f6, %dx		# read the sector with the count's low byte for its number
	mov $0xe0, %al
	outb %al, %dx
	mov $0x1f2, %dx
	mov $1, %al
	outb %al, %dx
	inc %dx
	mov %bp, %ax
	outb %al, %dx
	xor %al, %al
	inc %dx
	outb %al, %dx
	inc %dx
	outb %al, %dx
	mov $0x1f7, %dx
	mov $0x20, %al
	outb %al, %dx
busy:	inb %dx, %al
	test $0x80, %al
	jnz busy
	test $8, %al
	jz busy
	mov $0x1f0, %dx
	inw %dx, %ax
	mov %ax, %di
	mov $255, %cx
rest:	inw %dx, %ax
	loop rest
	mov %bp, %si
	call tell
	mov %di, %si
	call tell
	mov $10, %al
	call put
	jmp count
tell:	mov $4, %cx		# the digits of si, from a to p
digit:	rol $4, %si
	mov %si, %ax
	and $15, %al
	add $97, %al
	call put
	loop digit
	ret
put:	mov %al, %ah
	mov $0x3fd, %dx
full:	inb %dx, %al
	test $0x20, %al
	jz full
	mov $0x3f8, %dx
	mov %ah, %al
	outb %al, %dx
	ret
	.org 512
"""


def soon(what: str = "a step of this test") -> Deadline:
    return Deadline(what, PATIENCE)


def eventually(true: object) -> None:
    """Wait until it comes true; the deadline says if it does not."""
    assert callable(true)
    soon().poll(true, 0.02)


def told(console: Path) -> list[tuple[int, int]]:
    """The whole lines of a console, as (count, sector that was read)."""
    lines = console.read_text().split("\n")[:-1] if console.exists() else []
    hexadecimal = [
        line.translate(str.maketrans("abcdefghijklmnop", "0123456789abcdef")) for line in lines
    ]
    return [(int(line[:4], 16), int(line[4:], 16)) for line in hexadecimal]


def goes_on(console: Path, beyond: int) -> None:
    eventually(lambda: len(told(console)) > beyond)


def is_right(console: Path) -> bool:
    """It has counted without a gap or a repetition, and read what it asked the disk for."""
    lines = told(console)
    return lines == [((n + 1) & 0xFFFF, (n + 1) & 0xFF) for n in range(len(lines))]


def open_files(pid: int) -> list[str]:
    return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]


def tcp_sockets(pid: int) -> list[str]:
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()]
    there = {f"socket:[{row[9]}]" for row in rows}
    return [name for name in open_files(pid) if name in there]


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class Machine:
    """A Bochs that this process has started."""

    def __init__(self, folder: Path, rom: Path) -> None:
        self.console, self.log, self.folder = folder / "console", folder / "log", folder
        bochs = Bochs.find(Settings())
        disk, network = folder / "disk", folder / "slirp"
        disk.write_bytes(b"".join((n & 0xFF).to_bytes(2, "little") * 256 for n in range(SECTORS)))
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = int(server.getsockname()[1])
        network.write_text(f"# slirp config\nhostfwd = tcp:127.0.0.1:{self.port}-:22\n")
        lines = [line for line in common(bochs, self.log, self.console) if "vgarom" not in line]
        lines += [
            f"vgaromimage: file={quoted(rom)}",
            "memory: host=32, guest=32",
            f"cpu: model={MODEL}, ips=50000000",
            "pci: enabled=1, chipset=i440fx, slot1=e1000",
            f"e1000: enabled=1, mac=52:54:00:12:34:56, ethmod=slirp, script={quoted(network)}",
            "boot: disk",
            "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14",
            f"ata0-master: type=disk, mode=flat, path={quoted(disk)}",
        ]
        config = folder / "bochsrc"
        config.write_text("\n".join(lines) + "\n")
        self.link, self.terminal = Link(), Terminal()
        self.process = bochsprogram.start(bochs, config, self.terminal, self.link)

    def park(self, folder: Path, idle: float = 0) -> Parked:
        return self.link.park(self.console, self.log, folder, idle, soon())

    def close(self) -> None:
        if self.process.poll() is not None:
            return
        self.process.kill()
        self.process.wait()
        self.terminal.close()
        self.link.close()


@pytest.fixture(scope="module")
def rom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rom")
    source, plain, linked = folder / "r.S", folder / "r.o", folder / "rom"
    source.write_text(ROM)
    subprocess.run(["gcc", "-c", "-o", plain, source], check=True)
    subprocess.run(
        ["ld", "-Ttext=0", "-e0", "--oformat", "binary", "-o", linked, plain], check=True
    )
    linked.write_bytes(ramboot.rom(linked.read_bytes()))
    return linked


@pytest.fixture
def machine(tmp_path: Path, rom: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """One that counts. The library lies where a path in LD_PRELOAD could not lead."""
    try:
        Bochs.find(Settings())
    except MissingPrerequisite as error:
        pytest.skip(str(error))
    odd = tmp_path / "a b:c"
    odd.mkdir()
    shutil.copy(parked.library(), odd / "park.so")
    monkeypatch.setattr(parked, "library", lambda: odd / "park.so")
    folder = tmp_path / "job"
    folder.mkdir()
    one = Machine(folder, rom)
    try:
        goes_on(one.console, 20)
        yield one
    finally:
        one.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where to park: too long for a socket's address. What is parked there is ended."""
    folder = tmp_path / ("long" * 30) / "parked"
    yield folder
    if folder.exists() and (one := Parked.find(folder, soon())):
        one.end(soon())


def test_machines_go_on_side_by_side_from_where_one_was_parked(
    machine: Machine, place: Path, tmp_path: Path
) -> None:
    one = machine.park(place)
    goes_on(machine.console, len(told(machine.console)) + 100)
    machine.close()
    shutil.rmtree(machine.folder)  # as the job's end does, the disk with it
    files = [(tmp_path / f"console-{n}", tmp_path / f"log-{n}") for n in (1, 2)]
    forks = [one.fork(*pair, soon()) for pair in files]
    try:
        assert one.status(soon()).machines == 2
        before = one.console.read_text()
        for fork, (console, _) in zip(forks, files, strict=True):
            goes_on(console, before.count("\n") + 300)
            assert fork.poll() is None
            assert console.read_text().startswith(before) and is_right(console)
    finally:
        for fork in forks:
            fork.close()
    assert [fork.returncode for fork in forks] == [-signal.SIGKILL] * 2
    eventually(lambda: one.status(soon()).machines == 0)
    assert one.console.read_text() == before


def place_in(pid: int, file: Path) -> str:
    """Where a process is in a file that it has open."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if link.readlink() == file:
            return Path(f"/proc/{pid}/fdinfo/{link.name}").read_text().splitlines()[0]
    raise AssertionError(f"{file} is not open")


def test_no_machine_moves_where_another_is_on_the_disk(
    machine: Machine, place: Path, tmp_path: Path
) -> None:
    one = machine.park(place)
    stands, runs = (one.fork(tmp_path / f"c{n}", tmp_path / f"l{n}", soon()) for n in (1, 2))
    try:
        os.kill(stands.pid, signal.SIGSTOP)
        for number in range(5):
            before = place_in(stands.pid, machine.folder / "disk")
            goes_on(tmp_path / "c2", len(told(tmp_path / "c2")) + 50 + number)
            assert place_in(stands.pid, machine.folder / "disk") == before
    finally:
        stands.close()
        runs.close()


def test_a_machine_has_nothing_of_its_siblings(
    machine: Machine, place: Path, tmp_path: Path
) -> None:
    one = machine.park(place)
    forks = [one.fork(tmp_path / f"c{n}", tmp_path / f"l{n}", soon()) for n in (1, 2, 3)]
    counts = {len(open_files(fork.pid)) for fork in forks}
    for fork in forks:
        fork.close()
    assert len(counts) == 1


def test_the_machine_that_was_copied_runs_on_unharmed(machine: Machine, place: Path) -> None:
    for number in range(3):
        before = len(told(machine.console))
        machine.park(place.with_name(f"p{number}")).end(soon())
        goes_on(machine.console, before + 100)
    assert machine.process.poll() is None and is_right(machine.console)
    assert listens(machine.process.pid, machine.port)


def test_what_is_parked_holds_nothing_of_the_job(machine: Machine, place: Path) -> None:
    with socket.create_connection(("127.0.0.1", machine.port)):  # slirp takes it in its own time
        eventually(lambda: len(tcp_sockets(machine.process.pid)) == 2)
        one = machine.park(place)
    names = open_files(one.pid)
    assert not tcp_sockets(one.pid)
    assert not [name for name in names if "/dev/pt" in name or name == str(machine.console)]
    machine.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", machine.port))
    status = Path(f"/proc/{one.pid}/status").read_text()
    assert f"PPid:\t{os.getpid()}\n" not in status
    assert Path(f"/proc/{one.pid}/cwd").readlink() == Path("/")
    os.kill(one.pid, signal.SIGHUP)
    assert one.status(soon()).machines == 0
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "control").stat().st_mode) == 0o600


def test_its_name_tells_and_it_goes_first_when_memory_is_short(
    machine: Machine, place: Path, tmp_path: Path
) -> None:
    one = machine.park(place)
    fork = one.fork(tmp_path / "c", tmp_path / "l", soon())
    goes_on(tmp_path / "c", len(told(one.console)) + 1)
    names = [Path(f"/proc/{pid}/comm").read_text() for pid in (machine.process.pid, fork.pid)]
    scores = [
        int(Path(f"/proc/{pid}/oom_score_adj").read_text())
        for pid in (machine.process.pid, fork.pid, one.pid)
    ]
    fork.close()
    assert names[0] == names[1] and Path(f"/proc/{one.pid}/comm").read_text() == "l2gate-parked\n"
    assert scores[0] == scores[1] < scores[2]


def test_it_uses_no_cpu(machine: Machine, place: Path) -> None:
    one = machine.park(place)
    goes_on(machine.console, len(told(machine.console)) + 300)
    fields = Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()
    assert (fields[11], fields[12]) in {("0", "0"), ("0", "1")}  # its own making, in 10 ms


def test_each_machine_has_its_port(machine: Machine, place: Path, tmp_path: Path) -> None:
    one = machine.park(place)
    first, second = (one.fork(tmp_path / f"c{n}", tmp_path / f"l{n}", soon()) for n in (1, 2))
    try:
        assert len({machine.port, first.port, second.port}) == 3
        for pid, port in ((first.pid, first.port), (second.pid, second.port)):
            assert listens(pid, port) and not listens(pid, machine.port)
        assert not listens(one.pid, first.port)
        with socket.create_connection(("127.0.0.1", first.port)):
            eventually(lambda: len(tcp_sockets(first.pid)) == 2)
        assert first.poll() is None
    finally:
        first.close()
        second.close()


def test_connections_of_the_copied_machine_are_closed_in_a_fork(
    machine: Machine, place: Path, tmp_path: Path
) -> None:
    with socket.create_connection(("127.0.0.1", machine.port)) as client:
        eventually(lambda: len(tcp_sockets(machine.process.pid)) == 2)
        one = machine.park(place)
        fork = one.fork(tmp_path / "c", tmp_path / "l", soon())
        assert len(tcp_sockets(fork.pid)) == 1, "its port, and the connection as well"
        goes_on(tmp_path / "c", one.console.read_text().count("\n") + 100)
        assert is_right(tmp_path / "c")
        fork.close()
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):  # in the one that runs on, it is open
            client.recv(1)


#: A job that has forked a process, which has all that the job has, its ends of the links too.
JOB = """
import os, sys, time
from pathlib import Path
from l2gate.foundation.deadline import Deadline
from l2gate.hosts.emulated.parked import Parked
folder, more = Path(sys.argv[1]), Path(sys.argv[2])
one = Parked.find(folder, Deadline("it is there", 60))
forks = [one.fork(more / f"jc{n}", more / f"jl{n}", Deadline("forked", 60)) for n in (1, 2)]
heir = os.fork()
if heir:
    print(heir, *[fork.pid for fork in forks], flush=True)
time.sleep(600)
"""


def test_a_job_that_is_killed_takes_its_machines_with_it(
    machine: Machine, place: Path, tmp_path: Path
) -> None:
    one = machine.park(place)
    mine = one.fork(tmp_path / "c", tmp_path / "l", soon())
    words = [sys.executable, "-c", JOB, str(place), str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout
        heir, *pids = (int(word) for word in job.stdout.readline().split())
        assert len(pids) == 2 and all(map(exists, pids)) and one.status(soon()).machines == 3
        job.kill()
        try:
            eventually(lambda: not any(map(exists, pids)))
        finally:
            os.kill(heir, signal.SIGKILL)
    assert one.alive and mine.poll() is None
    mine.close()


def test_a_fork_can_be_parked_and_does_not_need_the_first(
    machine: Machine, place: Path, tmp_path: Path
) -> None:
    one = machine.park(place)
    fork = one.fork(tmp_path / "c1", tmp_path / "l1", soon())
    goes_on(tmp_path / "c1", len(told(one.console)) + 100)
    second = fork.link.park(tmp_path / "c1", tmp_path / "l1", tmp_path / "second", 0, soon())
    try:
        one.end(soon())
        assert not one.alive and not place.exists() and fork.poll() is None
        fork.kill()
        assert fork.wait(PATIENCE) == 1, "nobody is left who knows how it ended"
        assert len(told(second.console)) > len(told(machine.console)[:20])
        third = second.fork(tmp_path / "c3", tmp_path / "l3", soon())
        goes_on(tmp_path / "c3", len(told(second.console)) + 100)
        assert is_right(tmp_path / "c3")
        third.close()
    finally:
        second.end(soon())


def test_one_that_is_idle_ends_but_not_under_a_machine(
    machine: Machine, place: Path, tmp_path: Path
) -> None:
    one = machine.park(place, idle=1)
    fork = one.fork(tmp_path / "c", tmp_path / "l", soon())
    with pytest.raises(subprocess.TimeoutExpired):
        fork.wait(2.5)
    assert one.alive
    fork.link.close()  # is an end as well
    assert fork.wait(PATIENCE) == 0
    assert one.status(soon()).idle <= 1, "its time does not begin when the machine ends"
    eventually(lambda: not one.alive)
    assert Parked.find(place, soon()) is None
    with pytest.raises(BenchError, match="is not there"):
        one.fork(tmp_path / "c2", tmp_path / "l2", soon())
    one.end(soon())
    assert not place.exists()


def test_what_cannot_be_done_is_said_in_words(
    machine: Machine, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BenchError, match="does not write to this console"):
        machine.link.park(Path("/etc/passwd"), machine.log, place, 0, soon())
    assert not place.exists()
    one = machine.park(place)
    with pytest.raises(BenchError, match="name a new folder"):
        machine.park(place)
    for words, answer in (("fork", "five descriptors"), ("sing", "fork, status and end")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            monkeypatch.chdir(place)
            client.connect("control")
            client.send(words.encode())
            assert answer in client.recv(256).decode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect("control")  # and goes without a word
    assert one.status(soon()).machines == 0
    assert Parked.find(place.parent, soon()) is None


def test_one_that_does_not_answer_is_ended_all_the_same(machine: Machine, place: Path) -> None:
    one = machine.park(place)
    os.kill(one.pid, signal.SIGSTOP)
    with pytest.raises(BenchError, match="does not answer"):
        one.status(Deadline("it answers", 0.2))
    one.end(Deadline("it ends", 1))
    assert not one.alive


def test_a_bochs_that_does_not_listen_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked, "_HERE_SECONDS", 0.1)
    link = Link()
    with pytest.raises(BenchError, match="cannot be parked"):
        link.park(tmp_path / "c", tmp_path / "l", tmp_path / "p", 0, soon())
    link.close()
    assert not (tmp_path / "p").exists()


def test_forks_share_their_memory(machine: Machine, place: Path, tmp_path: Path) -> None:
    one = machine.park(place)
    fork: Forked = one.fork(tmp_path / "c", tmp_path / "l", soon())
    resident, private = memory(fork.pid)
    assert 0 <= private < resident / 2
    fork.close()
    assert memory(fork.pid) == (0, 0)
