"""The log's lines: written, and read again by whoever makes rows of them."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from agent.records.served import ServedMessage, ServedRequest

LINE = ServedRequest(
    time=datetime(2026, 11, 27, 22, 0, tzinfo=UTC), request="chatcmpl-1", model="valley",
    messages=(ServedMessage(role="user", content="Who?\n\"é\""),), answer="ANSWER: Ös", finish="stop",
    prompt_tokens=40, completion_tokens=5, seconds=0.5,
)  # fmt: skip


def test_a_line_of_the_log_is_read_as_it_was_written() -> None:
    line = LINE.model_dump_json()
    assert "\n" not in line and ServedRequest.model_validate_json(line) == LINE


def test_a_line_with_a_role_that_no_client_may_send_is_refused() -> None:
    with pytest.raises(ValidationError, match="role"):
        ServedRequest.model_validate(LINE.model_dump() | {"messages": [{"role": "robot", "content": "x"}]})
