# SPDX-License-Identifier: MIT
"""What the helper says of a case that it could not conduct costs that case alone."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from l2gate.contract.table_judge import Seen
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import HelperError
from l2gate.injection.standalone import _answer
from l2gate.transport.connection import Remote

DONE = '{"type":"done","seconds":0.001}'
CASE = (
    '{"type":"case","errno":null,"nested_state":true,"guest_mode":true,"cr3":"0x4000","rip":"0x0",'
    '"changed":[],"returned":{"injected":0,"pending":0},"who":"nobody","back":true}'
)
ERROR = '{"type":"error","what":"KVM_SET_GUEST_DEBUG","errno":22,"name":"EINVAL","hint":null}'


class Says:
    """A helper that says these lines."""

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)

    def read_line(self, _: Deadline) -> str:
        return self._lines.pop(0)


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        ((CASE, DONE), Seen.from_answer(json.loads(CASE), "vmx")),
        ((ERROR, DONE), "KVM_SET_GUEST_DEBUG (EINVAL)"),
        (('{"type":"case","errno":', ERROR, "}", DONE), "KVM_SET_GUEST_DEBUG (EINVAL)"),
        (("}", DONE), "the helper said '}'"),
        ((DONE,), "the helper said nothing"),
    ],
)
def test_an_answer_ends_with_its_last_line(lines: tuple[str, ...], answer: Any) -> None:
    says = cast(Remote, Says(*lines, "the next case"))
    assert _answer(says, Deadline("an answer", 1), "vmx") == answer
    assert says.read_line(Deadline("the next", 1)) == "the next case"


@pytest.mark.parametrize("word", ["guest_mode", "changed", "who", "returned"])
def test_an_answer_that_lacks_a_word_is_none(word: str) -> None:
    told = {key: value for key, value in json.loads(CASE).items() if key != word}
    with pytest.raises(HelperError, match=word):
        Seen.from_answer(told, "vmx")
