# SPDX-License-Identifier: MIT
"""A QMP session begins whatever QEMU says meanwhile, and ends with what it lacks named."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError
from l2gate.transport.qmp import Monitor

GREETING = {"QMP": {"version": {"qemu": {}, "package": ""}, "capabilities": ["oob"]}}
RESUME: dict[str, Any] = {"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 0}}

Message = dict[str, Any]
Answer = Callable[[Message], list[Message]]


def serve(path: Path, answer: Answer) -> threading.Thread:
    """One client is greeted; each of its commands gets what ``answer`` makes of it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def talk() -> None:
        with listener, listener.accept()[0] as client:
            client.sendall(json.dumps(GREETING).encode() + b"\n")
            while command := client.recv(65536):
                for message in answer(json.loads(command)):
                    client.sendall(json.dumps(message).encode() + b"\n")

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    return thread


def test_an_event_before_the_first_reply_is_no_failure(tmp_path: Path) -> None:
    def answer(command: Message) -> list[Message]:
        return [RESUME, {"return": command["execute"], "id": command["id"]}]

    server = serve(tmp_path / "qmp", answer)
    deadline = Deadline("QMP", 10)
    with Monitor.at(tmp_path / "qmp", deadline) as monitor:
        assert monitor.execute("query-status", deadline) == "query-status"
    server.join(10)
    assert not server.is_alive()


def test_a_qemu_that_refuses_to_negotiate_is_quoted(tmp_path: Path) -> None:
    def answer(command: Message) -> list[Message]:
        error = {"class": "CommandNotFound", "desc": "not this one"}
        return [{"error": error, "id": command["id"]}]

    server = serve(tmp_path / "qmp", answer)
    with pytest.raises(BenchError, match="qmp_capabilities: not this one"):
        Monitor.at(tmp_path / "qmp", Deadline("QMP", 10))
    server.join(10)
    assert not server.is_alive()
