# SPDX-License-Identifier: MIT
"""The helper's `serve` and its client, with the real helper on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, HelperError
from l2gate.transport.connection import Leased, Remote
from l2gate.transport.local import LocalConnection
from l2gate.transport.multiplexer import Multiplexer, Served, SharedConnection
from l2gate.transport.qmp import Monitor
from l2gate.transport.serve import WINDOW, Frame, Frames, ServeConnection, frame, served


def soon(seconds: float = 20) -> Deadline:
    return Deadline("a unit test", seconds)


@pytest.fixture
def level(helper: Path) -> Iterator[ServeConnection]:
    with served(LocalConnection("L0"), str(helper)) as connection:
        yield connection


def serve_pid(connection: ServeConnection) -> int:
    connection.run("true", soon())
    assert connection._conversation
    return int(connection._conversation.hello["pid"])


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def victim(connection: ServeConnection, helper: Path) -> tuple[Remote, int]:
    """A verb that goes on, and its process."""
    remote = connection.start([str(helper), "victim"], soon())
    return remote, int(remote.read_object(soon())["pid"])


def group(leader: int) -> list[int]:
    """Those that are alive of its group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(folder.name)) == leader and alive(int(folder.name)):
                found.append(int(folder.name))
    return found


def gone(pid: int) -> bool:
    Deadline(f"process {pid} is gone", 10).poll(lambda: not alive(pid))
    return True


# ---- commands and verbs ----


def test_a_command_has_its_own_output_errors_and_status(level: ServeConnection) -> None:
    done = level.run("cat; echo bad >&2; exit 7", soon(), stdin=b"good", check=False)
    assert (done.stdout, done.stderr, done.status) == ("good", "bad\n", 7)


def children(pid: int) -> list[str]:
    """None, too, at a moment at which one of them is just ending (proc(5))."""
    with contextlib.suppress(ProcessLookupError):
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return []


def test_a_verb_runs_without_another_program(level: ServeConnection, helper: Path) -> None:
    server = serve_pid(level)
    done = level.run([str(helper), "words"], soon())
    assert done.stdout == subprocess.check_output([helper, "words"], text=True)
    remote, pid = victim(level, helper)
    with remote:
        soon().poll(lambda: children(server) == [str(pid)])
        # its command line is the server's: no exec has made another
        assert b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert not remote.ended
    assert gone(pid)


def test_a_verb_called_wrongly_ends_as_it_would_alone(level: ServeConnection, helper: Path) -> None:
    done = level.run([str(helper), "nonsense"], soon(), check=False)
    assert done.status == 64 and "usage:" in done.stderr


def test_a_child_has_three_files_and_a_session_of_its_own(
    level: ServeConnection, helper: Path
) -> None:
    others = [level.execute("cat", soon()) for _ in range(5)]
    files = level.run("ls /proc/self/fd | wc -l", soon()).stdout
    assert int(files) == 4  # and the one that ls has opened
    remote, pid = victim(level, helper)
    assert sorted(int(f.name) for f in Path(f"/proc/{pid}/fd").iterdir()) == [0, 1, 2]
    assert os.getsid(pid) == pid
    remote.close()
    for channel in others:
        channel.close()


def test_a_thousand_commands_leave_nothing(level: ServeConnection) -> None:
    pid = serve_pid(level)
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    for number in range(1000):
        assert level.run(f"echo {number}", soon()).stdout == f"{number}\n"
    Deadline("its streams are gone", 5).poll(
        lambda: (
            len(list(Path(f"/proc/{pid}/fd").iterdir())) == files
            and not Path(f"/proc/{pid}/task/{pid}/children").read_text()
        )
    )


def test_many_streams_at_once(level: ServeConnection) -> None:
    size = 3 * WINDOW + 5
    wrong = []

    def one(number: int) -> None:
        data = bytes([number]) * size
        done = level.execute("tee /dev/fd/2", soon(60))
        out, err = bytearray(), bytearray()

        def read_errors() -> None:
            while part := done.recv_stderr(65536):
                err.extend(part)

        def read() -> None:
            while part := done.recv(65536):
                out.extend(part)

        readers = [threading.Thread(target=read), threading.Thread(target=read_errors)]
        for reader in readers:
            reader.start()
        done.sendall(data)
        done.shutdown_write()
        for reader in readers:
            reader.join(60)
        if (bytes(out), bytes(err), done.recv_exit_status()) != (data, data, 0):
            wrong.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert wrong == []


def test_the_end_of_stdin_leaves_stdout_open(level: ServeConnection) -> None:
    channel = level.execute("cat >/dev/null; sleep 0.1; echo heard", soon())
    channel.sendall(b"x")
    channel.shutdown_write()
    assert channel.recv(100) == b"heard\n"
    assert channel.recv(100) == b""


def test_the_end_of_stdout_is_not_the_end_of_the_command(level: ServeConnection) -> None:
    channel = level.execute("exec >&-; read line; echo $line >&2; exit 3", soon())
    assert channel.recv(100) == b""
    assert not channel.exit_status_ready()
    channel.sendall(b"word\n")
    assert channel.recv_stderr(100) == b"word\n"
    assert channel.recv_exit_status() == 3


def test_what_a_command_leaves_behind_in_a_session_of_its_own_stays(
    level: ServeConnection, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    level.run(f"setsid sh -c 'echo $$ >{note}; exec sleep 60' </dev/null >/dev/null 2>&1 &", soon())
    soon().poll(lambda: note.exists() and note.read_text().strip())
    pid = int(note.read_text())
    level.close()
    time.sleep(0.3)
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_more_streams_than_it_can_have_are_refused(level: ServeConnection) -> None:
    channels = [level.execute("cat", soon()) for _ in range(256)]
    with pytest.raises(BenchError, match="too many streams"):
        level.run("true", soon())
    for channel in channels:
        channel.close()

    def goes_on() -> bool:
        with contextlib.suppress(BenchError):
            return level.run("true", soon()).status == 0
        return False

    soon().poll(goes_on)


def test_a_sudo_is_paid_for_once(
    helper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sudo, calls = tmp_path / "sudo", tmp_path / "calls"
    sudo.write_text(f'#!/bin/sh\necho "$*" >>{calls}\nshift 2\nAS=root exec "$@"\n')
    sudo.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    carrier = LocalConnection("L0")
    carrier.sudo = True
    with served(carrier, str(helper)) as level:
        for _ in range(3):
            assert level.run("echo $AS", soon()).stdout == "root\n"
        assert level.run([str(helper), "words"], soon()).stdout
    assert len(calls.read_text().splitlines()) == 1


# ---- flow control ----


def test_a_stream_that_nobody_reads_stalls_no_other_and_takes_no_memory(
    level: ServeConnection,
) -> None:
    pid = serve_pid(level)
    flood = level.execute("yes; ", soon())
    errors = level.execute("yes >&2", soon())
    time.sleep(0.5)
    start = time.monotonic()
    for _ in range(50):
        level.run("true", soon())
    assert time.monotonic() - start < 10
    memory = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line
    )
    assert int(memory.split()[1]) < 8 << 10
    for channel in (flood, errors):
        held = sum(len(inlet.data) for inlet in channel._inlets.values())
        assert held == WINDOW
    # and it goes on once somebody reads
    seen = 0
    while seen < 5 * WINDOW:
        seen += len(flood.recv(65536))
    flood.close()
    errors.close()


def test_a_command_that_does_not_read_stalls_no_other(level: ServeConnection) -> None:
    channel = level.execute("sleep 60", soon())
    channel.settimeout(0.5)
    with pytest.raises(TimeoutError):
        channel.sendall(bytes(4 * WINDOW))
    assert level.run("echo on", soon()).stdout == "on\n"
    channel.close()


def test_what_a_command_does_not_want_is_no_error(level: ServeConnection) -> None:
    done = level.run("exec <&-; sleep 0.2; echo done", soon(), stdin=bytes(4 * WINDOW))
    assert done.stdout == "done\n"
    assert level.run("exit 5", soon(), stdin=bytes(4 * WINDOW), check=False).status == 5


def test_a_client_that_reads_nothing_takes_no_memory(helper: Path) -> None:
    """A peer that sends and sends, and does not look at the answers."""
    with subprocess.Popen([helper, "serve"], stdin=-1, stdout=-1) as process:
        assert process.stdin and process.stdout
        os.set_blocking(process.stdin.fileno(), False)
        pings = frame(Frame.PING, 1, bytes(1000)) * 1000
        last = time.monotonic() + 2
        while time.monotonic() < last:
            try:
                pings = pings[os.write(process.stdin.fileno(), pings) :]
            except BlockingIOError:
                time.sleep(0.05)
        status = Path(f"/proc/{process.pid}/status").read_text()
        memory = int(next(line for line in status.splitlines() if "VmRSS" in line).split()[1])
        process.stdout.close()
        assert memory < 8 << 10
        assert process.wait(10) == 0


# ---- the ends ----


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGABRT, signal.SIGTERM])
def test_a_verb_that_dies_is_told_with_its_signal(
    level: ServeConnection, helper: Path, signo: signal.Signals
) -> None:
    remote, pid = victim(level, helper)
    with remote:
        os.kill(pid, signo)
        with pytest.raises(HelperError, match=f"killed by signal {signo.value}"):
            remote.read_line(soon())
        assert remote.ended
    assert level.run("echo on", soon()).stdout == "on\n"


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGSEGV])
def test_when_serve_dies_who_used_it_is_told_and_the_next_has_a_new_one(
    level: ServeConnection, helper: Path, signo: signal.Signals
) -> None:
    first = serve_pid(level)
    remote, pid = victim(level, helper)
    os.kill(first, signo)
    cause = f"the helper's connection to L0 ended: killed by signal {signo.value}"
    with pytest.raises(HelperError, match=cause):
        remote.read_line(soon())
    assert gone(pid)
    assert level.run("echo on", soon()).stdout == "on\n"
    assert serve_pid(level) != first


def test_the_last_words_are_said_however_much_is_before_them(helper: Path) -> None:
    """And nobody waits for a client that does not read them, or turns in circles meanwhile."""
    data = frame(Frame.PING, 1, bytes(131072)) * 3 + bytes([99]) + bytes(8)
    _, said, _ = talk(helper, data)
    assert replies(said)[-1][2] == b"a frame of type 99"
    hold = frame(Frame.OPEN, 9, b"exec\0trap '' TERM; sleep 60; sleep 60\0")
    process = subprocess.Popen([helper, "serve"], stdin=-1, stdout=-1, stderr=-1)
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(hold + data)
    process.stdin.flush()
    start = time.monotonic()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 1
    assert time.monotonic() - start < 8
    assert usage.ru_utime + usage.ru_stime < 0.5
    for end in (process.stdin, process.stdout, process.stderr):
        end.close()


def test_a_command_under_way_is_told_too(level: ServeConnection) -> None:
    pid = serve_pid(level)
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(BenchError, match=r"connection to L0 ended: killed by signal 9"):
        level.run("sleep 60", soon())


def test_at_the_end_all_that_it_has_started_ends(helper: Path, tmp_path: Path) -> None:
    """Those too that take no notice of it, or of SIGTERM, and what they have started."""
    lines = ("sleep 61", "trap '' TERM; sleep 61; sleep 61", "sleep 61 & sleep 61", "exec cat")
    with served(LocalConnection("L0"), str(helper)) as level:
        server = serve_pid(level)
        for number, line in enumerate(lines):
            level.execute(f"echo $$ >{tmp_path / str(number)}; {line}", soon())
        soon().poll(lambda: len(list(tmp_path.iterdir())) == len(lines))
        soon().poll(lambda: all(file.read_text() for file in tmp_path.iterdir()))
        pids = [int(file.read_text()) for file in tmp_path.iterdir()]
        assert all(alive(pid) for pid in pids)
    assert gone(server)
    assert not any(alive(pid) for pid in pids)
    soon(2).poll(lambda: not any(group(pid) for pid in pids))


def test_a_stream_that_is_closed_ends_with_its_group(level: ServeConnection) -> None:
    channel = level.execute("sleep 62 & echo $! $$; trap '' TERM; sleep 62; sleep 62", soon())
    pids = [int(word) for word in channel.recv(100).split()]
    channel.close()
    assert all(gone(pid) for pid in pids)
    assert level.run("echo on", soon()).stdout == "on\n"


def test_one_that_puts_things_away_at_its_end_is_let(helper: Path, tmp_path: Path) -> None:
    folder, note = tmp_path / "job", tmp_path / "note"
    with served(LocalConnection("L0"), str(helper)) as level:
        argv = [str(helper), "supervise", "--lock", str(tmp_path / "lock"), "--within", "30"]
        argv += ["--folder", str(folder), "--exclusive", "--finally", f"sleep 5; date >{note}"]
        remote = level.start(argv, soon())
        pid = remote.read_object(soon())["pid"]
        # another job looks there whether this one is alive (hosts/lab/access.py)
        assert str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        remote.send("start exec sleep 63")
        child = remote.read_object(soon())["pid"]
    assert gone(child)
    Deadline("the supervisor puts all away", 15).poll(lambda: note.exists() and not folder.exists())


# ---- sockets ----


@contextlib.contextmanager
def echo(server: socket.socket) -> Iterator[None]:
    """Sends back what it gets, with `end` once the other side has shut down its half."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = server.accept()
                with end:
                    while data := end.recv(65536):
                        end.sendall(data)
                    end.sendall(b"end")

    threading.Thread(target=serve, daemon=True).start()
    with server:
        yield
        server.shutdown(socket.SHUT_RDWR)


def test_sockets_with_half_close(level: ServeConnection, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    unix, tcp = socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 0))
    unix.bind(str(path))
    unix.listen(1)
    size = 2 * WINDOW + 77
    with echo(unix), echo(tcp):
        for channel in (
            level.unix(str(path), "", soon()),
            level.tunnel("127.0.0.1", tcp.getsockname()[1], soon()),
        ):
            threading.Thread(
                target=lambda c=channel: (c.sendall(bytes(size)), c.shutdown_write())
            ).start()
            channel.settimeout(20)
            got = bytearray()
            while data := channel.recv(65536):
                got += data
            assert bytes(got) == bytes(size) + b"end"
            channel.close()


def test_sockets_that_are_not_there(level: ServeConnection, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(BenchError, match="ECONNREFUSED"):
        level.tunnel("127.0.0.1", port, soon())
    with pytest.raises(BenchError, match="ENOENT"):
        level.unix(str(tmp_path / "nothing"), "", soon())
    with pytest.raises(BenchError, match="EINVAL"):
        level.unix(str(tmp_path / ("x" * 200)), "", soon())
    with pytest.raises(BenchError, match="EINVAL"):
        level.tunnel("a.name", port, soon())


# ---- one that cannot be spoken to ----


def test_another_protocol_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "helper"
    script.write_text(
        '#!/bin/sh\necho \'{"type":"serve","protocol":2,"window":1,"payload":1}\'\nexec cat\n'
    )
    script.chmod(0o700)
    with (
        served(LocalConnection("L0"), str(script)) as level,
        pytest.raises(BenchError, match=r"speaks protocol 2.* this l2gate speaks protocol 1"),
    ):
        level.run("true", soon())


def test_a_helper_that_is_too_old_for_it_is_told_by_its_own_words(tmp_path: Path) -> None:
    script = tmp_path / "helper"
    script.write_text("#!/bin/sh\necho 'usage: l2gate-helper VERB' >&2; exit 64\n")
    script.chmod(0o700)
    with (
        served(LocalConnection("L0"), str(script)) as level,
        pytest.raises(BenchError, match="it ended with 64: usage: l2gate-helper VERB"),
    ):
        level.run("true", soon())


def test_what_a_login_shell_says_before_is_passed_over(tmp_path: Path, helper: Path) -> None:
    script = tmp_path / "helper"
    script.write_text(f"#!/bin/sh\nprintf 'welcome\\nto {{ this }} host '; exec {helper} serve\n")
    script.chmod(0o700)
    with served(LocalConnection("L0"), str(script)) as level:
        assert level.run("echo on", soon()).stdout == "on\n"


# ---- the parser, with what no client sends ----


def talk(helper: Path, data: bytes) -> tuple[int, bytes, bytes]:
    process = subprocess.run([helper, "serve"], input=data, capture_output=True, timeout=30)
    return process.returncode, process.stdout, process.stderr


def replies(said: bytes) -> list[tuple[Frame, int, bytes]]:
    line, _, rest = said.partition(b"\n")
    assert json.loads(line)["type"] == "serve"
    frames, found = Frames(rest), []
    while one := frames.next():
        found.append(one)
    return found


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (frame(Frame.PING, 1)[:-4] + b"\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
        (bytes([99]) + bytes(8), "a frame of type 99"),
        (frame(Frame.OPEN, 0, b"exec\0true\0"), "stream 0 is open"),
        (frame(Frame.OPEN, 1, b"exec\0cat\0") * 2, "stream 1 is open"),
        (
            frame(Frame.OPEN, 1, b"exec\0sleep 9\0") + frame(Frame.DATA, 1, bytes(131072)) * 3,
            "stream 1: more data than its window",
        ),
        (
            frame(Frame.OPEN, 1, b"exec\0cat\0") + frame(Frame.CREDIT, 1, b"\x13\xff\xff\xff\xff"),
            "stream 1: a credit",
        ),
        (frame(Frame.OPEN, 1, b"exec\0cat\0") + frame(Frame.CREDIT, 1), "stream 1: a credit"),
    ],
)
def test_a_client_that_breaks_the_protocol_is_told_why(
    helper: Path, data: bytes, cause: str
) -> None:
    status, said, words = talk(helper, data)
    assert status == 1 and cause in words.decode()
    kind, stream, text = replies(said)[-1]
    assert (kind, stream) == (Frame.ERROR, 0) and cause in text.decode()


@pytest.mark.parametrize(
    "payload",
    [b"", b"\0", b"exec\0", b"exec", b"exec\0true", b"exec\0a\0b\0", b"nothing\0x\0", b"verb\0",
     b"tcp\0127.0.0.1\0", b"unix\0a\0b\0", b"x\0" * 65],
)  # fmt: skip
def test_what_cannot_be_opened_ends_that_stream_alone(helper: Path, payload: bytes) -> None:
    status, said, _ = talk(helper, frame(Frame.OPEN, 7, payload) + frame(Frame.PING, 8, b"on"))
    assert status == 0
    failed, pong = replies(said)
    assert failed[:2] == (Frame.FAILED, 7) and b"EINVAL" in failed[2]
    assert pong == (Frame.PONG, 8, b"on")


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The helper with checks of memory and of undefined behaviour."""
    from l2gate.foundation.settings import checkout

    folder = tmp_path_factory.mktemp("hardened")
    flags = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -no-pie -Wno-error"
    command = ["make", "-s", "-C", str(checkout() / "lib/helper"), f"OUT={folder}"]
    command += [f"CFLAGS={flags}", "STATIC=", "l2gate-helper"]
    subprocess.run(command, check=True)
    return folder / "l2gate-helper"


#: A conversation with all that there is, to be spoilt; nothing in it can do harm.
_VALID = (
    frame(Frame.OPEN, 1, b"verb\0help\0")
    + frame(Frame.OPEN, 2, b"verb\0cases\0")
    + frame(Frame.DATA, 2, b"nonsense\n" * 100)
    + frame(Frame.OPEN, 3, b"unix\0/nowhere/at/all\0")
    + frame(Frame.OPEN, 4, b"tcp\0127.0.0.1\0001\0")
    + frame(Frame.CREDIT, 1, b"\x13\0\0\0\x01")
    + frame(Frame.PING, 5, b"ping")
    + frame(Frame.DATA, 2)
    + frame(Frame.CLOSE, 1)
    + frame(Frame.OPEN, 6, b"verb\0serve\0")
    + frame(Frame.DATA, 6, frame(Frame.OPEN, 1, b"verb\0words\0") + frame(Frame.CLOSE, 1))
)


_CLIENT = (Frame.OPEN, Frame.OPEN, Frame.DATA, Frame.CREDIT, Frame.CLOSE, Frame.PING)
_PAYLOADS = (
    b"", b"x", b"verb\0help\0", b"verb\0cases\0", b"verb\0words\0", b"unix\0/nowhere\0",
    b"tcp\0127.0.0.1\0001\0", b"\x13\0\0\0\x01", b"\x14\0\0\0\0", bytes(131072),
)  # fmt: skip


def spoilt(chance: random.Random) -> bytes:
    kind = chance.randrange(4)
    if kind == 0:
        return chance.randbytes(chance.randrange(4000))
    if kind == 3:  # frames of the right form, in no order
        return b"".join(
            frame(chance.choice(_CLIENT), chance.randrange(5), chance.choice(_PAYLOADS))
            for _ in range(chance.randrange(1, 40))
        )
    data = bytearray(_VALID)
    if kind == 1:
        del data[chance.randrange(len(data)) :]
    for _ in range(chance.randrange(1, 6)):
        if data:
            data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def test_random_bytes_crash_nothing(hardened: Path) -> None:
    """200 conversations that are spoilt: it ends, and with a cause where it does not understand."""
    for seed in range(200):
        status, said, words = talk(hardened, spoilt(random.Random(seed)))
        assert status in (0, 1), (seed, status, words[-2000:])
        assert b"Sanitizer" not in words, (seed, words[-2000:])
        if status == 1:
            assert replies(said)[-1][0] is Frame.ERROR, seed


# ---- the job and its tests ----


@pytest.fixture
def job(helper: Path, tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "multiplexer"
    multiplexer = Multiplexer(path, {"L1": Served(LocalConnection("L1"), str(helper))})
    yield str(path)
    multiplexer.close()


def joined(path: str) -> SharedConnection:
    return SharedConnection(path, "L1")


def test_tests_share_one_serve(job: str, helper: Path) -> None:
    with joined(job) as first, joined(job) as second:
        with victim(first, helper)[0]:
            parents = {
                first.run("echo $PPID", soon()).stdout,
                second.run("echo $PPID", soon()).stdout,
                first.run("echo $PPID", soon()).stdout,
            }
        assert len(parents) == 1
        data = bytes(3 * WINDOW)
        assert len(second.run("cat", soon(), stdin=data).stdout) == len(data)


def test_a_test_that_goes_away_leaves_nothing_running(job: str) -> None:
    with joined(job) as first, joined(job) as second:
        channel = first.execute("sleep 64 & echo $$ $!; trap '' TERM; wait; sleep 64", soon())
        pids = [int(word) for word in channel.recv(100).split()]
        first.close()
        assert all(gone(pid) for pid in pids)
        assert second.run("echo on", soon()).stdout == "on\n"


def test_a_test_that_stands_still_holds_up_no_other(job: str) -> None:
    """A process that is stopped reads nothing: neither its streams nor its socket."""
    end = socket.socket(socket.AF_UNIX)
    end.connect(job)
    end.sendall(b'{"level":"L1"}\n')
    for number in range(1, 9):
        end.sendall(frame(Frame.OPEN, number, b"exec\0yes\0"))
    time.sleep(0.3)
    with joined(job) as second:
        for _ in range(20):
            second.run("true", soon(5))
    end.close()


def test_a_test_is_told_when_serve_dies_and_the_next_has_a_new_one(job: str, helper: Path) -> None:
    with joined(job) as first:
        remote, _ = victim(first, helper)
        os.kill(serve_pid(first), signal.SIGKILL)
        cause = "the helper's connection to L1 ended: killed by signal 9"
        with pytest.raises(HelperError, match=cause):
            remote.read_line(soon())
        # so has the same test, if it goes on
        assert first.run("echo on", soon()).stdout == "on\n"
    with joined(job) as second:
        assert second.run("echo on", soon()).stdout == "on\n"


def test_a_level_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    path = tmp_path / "multiplexer"
    multiplexer = Multiplexer(path, {"L1": Served(LocalConnection("L1"), "/nowhere/helper")})
    try:
        with joined(str(path)) as first, pytest.raises(BenchError, match="it ended with 127"):
            first.run("true", soon())
    finally:
        multiplexer.close()


def test_a_test_whose_job_is_gone_is_told(job: str, tmp_path: Path) -> None:
    with joined(str(tmp_path / "other")) as first, pytest.raises(BenchError, match="is lost"):
        first.run("true", soon())


def test_who_waits_for_a_level_can_be_broken_off(tmp_path: Path) -> None:
    """As when L0 crashes: the watch of its console does so, from a thread of its own."""
    script = tmp_path / "helper"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o700)
    path = tmp_path / "multiplexer"
    multiplexer = Multiplexer(path, {"L1": Served(LocalConnection("L1"), str(script))})
    start = time.monotonic()
    with joined(str(path)) as first:
        threading.Timer(0.3, first.abort).start()
        with pytest.raises(BenchError, match="the job's connection to L1 is lost"):
            first.run("true", soon())
    assert time.monotonic() - start < 5
    multiplexer.close()


def test_a_command_under_way_can_be_broken_off(job: str) -> None:
    with joined(job) as first:
        first.run("true", soon())
        threading.Timer(0.3, first.abort).start()
        with pytest.raises(BenchError, match=r"broken off|is lost"):
            first.run("sleep 60", soon())


# ---- programs that outlive a test ----


def leased(path: str, helper: Path) -> tuple[SharedConnection, Leased, int]:
    connection = joined(path)
    program = connection.lease([str(helper), "victim"], soon())
    told = program.note or program.remote.read_line(soon())
    return connection, program, int(json.loads(told)["pid"])


def test_a_program_given_back_is_the_next_one_s(job: str, helper: Path) -> None:
    first, program, pid = leased(job, helper)
    assert program.note is None
    program.remote.ask("wait 10", soon())
    program.give_back(json.dumps({"pid": pid}))
    first.close()
    for _ in range(3):
        second, program, same = leased(job, helper)
        assert same == pid and program.note
        assert program.remote.ask("wait 10", soon())["advanced"]
        program.give_back(program.note)
        second.close()
    third, other, another = leased(job, helper)
    fourth, new, its = leased(job, helper)  # the one there is is taken
    assert another == pid and its != pid
    for connection in (third, fourth):
        connection.close()
    other.close()
    new.close()
    assert gone(pid) and gone(its)


def test_a_window_goes_on_where_the_one_before_has_left_it(job: str, helper: Path) -> None:
    """More in all than a window takes, from one to the next."""
    line = ["sh", "-c", 'while read -r l; do echo "$l"; done']
    for number in range(12):
        with joined(job) as connection:
            program = connection.lease(line, soon())
            assert (program.note is None) == (number == 0)
            for _ in range(10):
                asked = "x" * (WINDOW // 40 + number)
                program.remote.send(asked)
                assert program.remote.read_line(soon()) == asked
            program.give_back("at rest")


def test_what_is_not_given_back_in_order_is_ended(job: str, helper: Path) -> None:
    one, program, unread = leased(job, helper)
    program.remote.send("state")  # and its answer is not read
    said = program.remote.channel._inlets[Frame.OUT]  # type: ignore[attr-defined]
    soon().poll(lambda: bool(said.data))
    program.give_back("{}")
    three, _, held = leased(job, helper)
    three.close()  # a test that dies
    four, program, killed = leased(job, helper)
    program.give_back(json.dumps({"pid": killed}))
    soon().poll(lambda: four.run("true", soon()).status == 0)
    os.kill(killed, signal.SIGKILL)
    assert gone(killed)
    five, program, fresh = leased(job, helper)
    assert fresh not in (unread, held, killed) and program.note is None
    assert gone(unread) and gone(held)
    for connection in (one, four, five):
        connection.close()


def test_a_monitor_is_told_what_has_ended_the_way_to_it(job: str, tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def qemu() -> None:
        end, _ = server.accept()
        end.sendall(b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, '
                    b'"package": ""}, "capabilities": []}}\r\n')  # fmt: skip
        while data := end.recv(4096):
            asked = json.loads(data)
            if asked["execute"] == "qmp_capabilities":
                end.sendall(json.dumps({"return": {}, "id": asked["id"]}).encode() + b"\r\n")

    threading.Thread(target=qemu, daemon=True).start()
    with joined(job) as first, Monitor.over(first, "", str(path), soon()) as monitor:
        threading.Timer(0.3, os.kill, (serve_pid(first), signal.SIGKILL)).start()
        with pytest.raises(BenchError, match="QMP cont: the helper's connection to L1 ended: kill"):
            monitor.execute("cont", soon())
    server.close()
