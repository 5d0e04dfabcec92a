"""One contract, every store: order, nonces, and a store that fails or hangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.engines.engine import EngineTiming
from app.engines.memory import MemoryStore
from app.exceptions import NonceReused, StoreError, Unavailable
from app.message import Draft, Message
from tests.support.engines import Recorder, make_store
from tests.support.fakes import draft
from tests.support.running import until

pytestmark = pytest.mark.anyio

SHORT = EngineTiming(store_timeout=0.4)  # longer than a busy machine needs


@pytest.fixture
def timing() -> EngineTiming:
    return EngineTiming()


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def room(request: pytest.FixtureRequest, tmp_path: Path, timing: EngineTiming) -> AsyncIterator[Recorder]:
    room = await Recorder(make_store(request.param, request, tmp_path), timing).start()
    yield room
    room.store.flowing.set()
    await room.stop()


async def test_new_store_is_empty_and_healthy(room: Recorder) -> None:
    assert (room.engine.seq, room.healthy(), room.delivered) == (0, True, [])
    assert len(room.epoch) == 36


async def test_messages_are_delivered_in_order_and_numbered_without_gaps(room: Recorder) -> None:
    posted = [draft(f"{number}") for number in range(600)]
    room.publish(*posted[:1])
    await room.until(delivered=1)
    room.publish(*posted[1:])
    await room.until(delivered=600)
    assert room.seqs == list(range(1, 601)) == list(range(1, room.engine.seq + 1))
    assert room.texts == [new.text for new in posted]
    assert room.answers == []


async def test_message_is_its_draft_with_a_seq(room: Recorder) -> None:
    new = Draft("id", "session", "ada", "&lt;é🎉", "<é🎉", 1234.5678, "nonce", "owner")
    room.publish(new)
    await room.until(delivered=1)
    expected = Message("id", "session", "ada", "&lt;é🎉", "<é🎉", 1234.5678, "nonce", "owner", 1)
    assert room.delivered == [expected]


async def test_waiting_drafts_are_stored_in_batches_of_bounded_number_and_size(room: Recorder) -> None:
    room.publish(*[draft("x") for _ in range(300)])
    await room.until(delivered=300)
    assert room.batches == [256, 44]
    room.publish(*[draft("x" * 10_000) for _ in range(10)])
    await room.until(delivered=310)
    assert room.batches[2:] == [6, 4]


@pytest.mark.parametrize("together", [True, False])
async def test_nonce_used_again_is_answered_with_the_stored_message(room: Recorder, together: bool) -> None:
    room.publish(draft("one", "n"))
    if not together:
        await room.until(delivered=1)
    room.publish(draft("one", "n"), draft("two"))
    await room.until(delivered=2, answered=1)
    assert (room.texts, room.seqs) == (["one", "two"], [1, 2])
    assert room.answers == [room.delivered[0]]


@pytest.mark.parametrize("together", [True, False])
async def test_nonce_used_for_another_text_is_refused(room: Recorder, together: bool) -> None:
    room.publish(draft("one", "n"))
    if not together:
        await room.until(delivered=1)
    room.publish(draft("other", "n"), draft("two"))
    await room.until(delivered=2, answered=1)
    assert (room.texts, room.seqs) == (["one", "two"], [1, 2])
    assert room.refusals == [NonceReused]


async def test_nonce_belongs_to_its_session_and_may_be_left_out(room: Recorder) -> None:
    room.publish(draft("a", "n"), draft("a", "n", session="other"), draft("a"), draft("a"))
    await room.until(delivered=4)
    assert (room.seqs, room.answers) == ([1, 2, 3, 4], [])


async def test_answer_waits_until_everything_before_it_is_delivered(room: Recorder) -> None:
    room.flowing.clear()
    room.publish(draft("before"), draft("hello", "n"), draft("hello", "n"))
    await room.busy.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert room.answers == []
    room.flowing.set()
    await room.until(delivered=2, answered=1)


async def test_stop_stores_and_delivers_accepted_drafts(room: Recorder) -> None:
    room.publish(*[draft(f"{number}") for number in range(300)])
    await room.stop()
    assert room.seqs == list(range(1, 301))
    with pytest.raises(Unavailable):
        room.publish(draft("late"))
    await room.stop()


async def test_flush_waits_for_accepted_drafts(room: Recorder) -> None:
    await room.engine.flush()
    room.publish(*[draft("x") for _ in range(300)])
    await room.engine.flush()
    assert len(room.delivered) == 300


@pytest.mark.parametrize("timing", [EngineTiming(queue_limit=3)])
async def test_full_queue_refuses_and_loses_nothing(room: Recorder) -> None:
    room.publish(*[draft(f"{number}") for number in range(3)])
    with pytest.raises(Unavailable):
        room.publish(draft("too many"))
    await room.until(delivered=3)
    room.publish(draft("again"))
    await room.until(delivered=4)
    assert room.texts == ["0", "1", "2", "again"]


@pytest.mark.parametrize("timing", [EngineTiming(probe_broken=0.001)])
async def test_failing_store_refuses_and_recovers_without_traffic(
    room: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app")
    room.store.fault = StoreError("the disk is full")
    room.publish(draft("one", "n"), draft("two"))
    await room.until(answered=2)
    assert (room.refusals, room.healthy()) == ([Unavailable, Unavailable], False)
    await room.store.probed(3)
    assert not room.healthy()
    room.store.fault = None
    await until(room.healthy)
    room.publish(draft("one", "n"))
    await room.until(delivered=1)
    assert (room.seqs, room.texts) == ([1], ["one"])
    logged = [entry.getMessage() for entry in caplog.records]
    assert logged == ["Messages cannot be stored: the disk is full", "Messages are stored again"]


@pytest.mark.parametrize("timing", [EngineTiming(probe_idle=0.001, probe_broken=0.001)])
async def test_idle_store_is_probed_so_that_a_fault_is_found_without_traffic(room: Recorder) -> None:
    await room.store.probed(1)
    assert room.healthy()
    room.store.fault = StoreError("read-only")
    await until(lambda: not room.healthy())
    assert (room.engine.seq, room.delivered) == (0, [])


@pytest.mark.parametrize("timing", [SHORT])
async def test_hanging_store_refuses_in_time_and_delivers_late(room: Recorder) -> None:
    room.store.flowing.clear()
    room.publish(draft("one", "n"))
    await room.until(answered=1)
    room.publish(draft("behind"))
    await room.until(answered=2)
    assert (room.refusals, room.healthy(), room.delivered) == ([Unavailable, Unavailable], False, [])
    room.store.flowing.set()
    await room.until(delivered=1)
    await until(room.healthy)
    assert room.texts == ["one"]
    room.publish(draft("one", "n"), draft("two"))
    await room.until(delivered=2, answered=3)
    assert room.answers[2] == room.delivered[0]
    assert room.seqs == [1, 2]


@pytest.mark.parametrize("timing", [SHORT])
async def test_hanging_store_that_fails_in_the_end_answers_once(room: Recorder) -> None:
    room.store.flowing.clear()
    room.publish(draft("one"))
    await room.until(answered=1)
    room.store.fault = StoreError("gone")
    room.store.flowing.set()
    room.publish(draft("two"))
    await room.until(answered=2)
    assert (room.refusals, room.delivered) == ([Unavailable, Unavailable], [])


async def test_stop_does_not_wait_for_ever_for_a_store_that_hangs() -> None:
    room = await Recorder(MemoryStore(), SHORT).start()
    room.store.flowing.clear()
    room.publish(draft("one"))
    async with asyncio.timeout(5):
        await room.stop()
    assert room.refusals == [Unavailable]


async def test_fault_of_our_own_in_the_store_is_logged_and_the_writer_survives(
    room: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    room.store.fault = RuntimeError("a bug")
    room.publish(draft("one"))
    await room.until(answered=1)
    assert caplog.records[0].exc_info
    room.store.fault = None
    room.publish(draft("two"))
    await room.until(delivered=1)
    assert room.texts == ["two"]


async def test_fault_of_our_own_in_the_listener_is_logged_and_the_next_message_is_delivered(
    room: Recorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(room, "delivered", None)  # so that adding to it raises
        room.publish(draft("one"))
        await until(lambda: bool(caplog.records))
        await room.engine.flush()
    assert caplog.records[0].exc_info
    room.publish(draft("two"))
    await room.until(delivered=1)
    assert room.texts == ["two"]
