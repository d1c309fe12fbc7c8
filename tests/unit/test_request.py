# SPDX-License-Identifier: MIT
"""What a frozen vCPU shows of itself."""

from __future__ import annotations

import pytest
from l2gate.injection.request import VcpuState

_NONE = {"exception.injected": 0, "interrupt.injected": 0, "nmi.injected": 0}


@pytest.mark.parametrize("kind", ["exception", "interrupt", "nmi"])
def test_an_event_on_its_way_is_seen(kind: str) -> None:
    assert VcpuState({"events": _NONE}).in_flight is None
    assert VcpuState({"events": _NONE | {f"{kind}.injected": 1}}).in_flight == kind
