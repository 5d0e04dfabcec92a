"""What becomes of typed text: here, the id that it gets."""

from __future__ import annotations

import uuid

from app.composer import message_id


def test_id_is_a_uuid_of_version_7() -> None:
    number = uuid.UUID(message_id(1e9))
    assert (number.version, number.variant) == (7, uuid.RFC_4122)


def test_ids_are_in_order_of_time_and_differ_within_a_millisecond() -> None:
    assert message_id(1e9) < message_id(1e9 + 0.001)
    assert len({message_id(1e9) for _ in range(1000)}) == 1000
