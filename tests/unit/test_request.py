# SPDX-License-Identifier: MIT
"""What a frozen vCPU shows of itself."""

from __future__ import annotations

import pytest
from l2gate.contract.outcome import Registers, VcpuState

_NONE: Registers = {"exception.injected": 0, "interrupt.injected": 0, "nmi.injected": 0}


def _state(events: Registers) -> VcpuState:
    return VcpuState(True, "SVM", False, cr3=0, rip=0, r15=0, events=events)


@pytest.mark.parametrize("kind", ["exception", "interrupt", "nmi"])
def test_an_event_on_its_way_is_seen(kind: str) -> None:
    assert _state(_NONE).in_flight is None
    assert _state(_NONE | {f"{kind}.injected": 1}).in_flight == kind
