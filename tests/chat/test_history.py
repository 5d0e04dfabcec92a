"""The history: a client that comes back gets exactly what it missed, or the plain history; held to a simple model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.chat.history import DELETIONS_LIMIT, History
from app.message import Deletion, Message
from app.wire import frames

LARGE = 1_000_000  # bytes


def message(seq: int, size: int = 1) -> Message:
    return Message(f"id-{seq}", "session", "ada", "x" * size, "x" * size, 1.0, seq=seq)


def add(kept: History, *seqs: int, size: int = 1) -> None:
    kept.add((message(seq, size), frames.encode_data(message(seq, size), "author")) for seq in seqs)


def shown(kept: History, since: object = None) -> tuple[bool, list[int], list[str] | None]:
    """Whether it is a recovery, the seqs of its messages, the ids of the deleted ones."""
    frame: dict[str, Any] = json.loads(kept.frame(None if since is None else str(since)))
    assert frame["type"] == "history"
    return frame["recovered"], [data["seq"] for data in frame["data"]], frame.get("hidden")


@dataclass
class Model:
    """All that ever happened: what each client that has everything up to a seq must get."""

    seq: int = 0
    pruned: int = 0
    deleted: set[int] = field(default_factory=set)
    deletions: list[Deletion] = field(default_factory=list)

    def left(self, since: int) -> list[int]:
        return [seq for seq in range(max(since, self.pruned) + 1, self.seq + 1) if seq not in self.deleted]

    def must_know(self, since: int) -> set[str]:
        """Seen, perhaps, and deleted when that was the newest message, or later."""
        return {deletion.id for deletion in self.deletions if deletion.seq <= since <= deletion.at}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 4)),
        st.tuples(st.just("delete"), st.sets(st.integers(1, 40), min_size=1, max_size=5)),
        st.tuples(st.just("prune"), st.integers(1, 40)),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(steps, st.integers(0, 8), st.integers(0, 8), st.sampled_from([3, DELETIONS_LIMIT]))
def test_recovery_is_whole_or_it_is_none(happened: list[Any], limit: int, recovery: int, deletions_limit: int) -> None:
    keep = max(limit, recovery)
    kept, model = History(keep, limit, recovery, LARGE, deletions_limit), Model()
    for what, how in happened:
        happen(kept, model, what, how)
        for since in range(model.seq + 2):
            recovered, seqs, hidden = shown(kept, since)
            left = model.left(since)
            if recovered:
                assert model.pruned <= since <= model.seq
                assert seqs == left
                assert set(hidden or ()) == model.must_know(since)
                assert len(hidden or ()) == len(set(hidden or ()))
            else:
                assert hidden is None
                assert seqs == (model.left(0)[-limit:] if limit else [])
        assert kept.seq == model.seq
    if deletions_limit > len(model.deletions):
        assert shown(kept, model.seq)[0]  # a client that has everything is never sent all of it


def happen(kept: History, model: Model, what: str, how: Any) -> None:
    if what == "add":
        add(kept, *range(model.seq + 1, model.seq + how + 1))
        model.seq += how
    elif what == "delete":
        seqs = sorted(seq for seq in how if model.pruned < seq <= model.seq and seq not in model.deleted)
        deletions = [Deletion(seq, f"id-{seq}", model.seq) for seq in seqs]
        kept.delete(deletions)
        model.deleted.update(seqs)
        model.deletions += deletions
        if gap := kept.gap():
            before, room = gap
            older = [message(seq) for seq in reversed(model.left(0)) if seq < before][:room]
            kept.fill([(each, frames.encode_data(each, "author")) for each in older])
    else:
        model.pruned = max(model.pruned, min(how, model.seq))
        kept.prune(model.pruned)


@pytest.mark.parametrize("since", ["", "-1", "1.0", "0x1", " 1", "1e0", "٣", "4", "9" * 17, str(2**53 + 1)])
def test_since_that_is_no_number_of_the_room_gets_the_plain_history(since: str) -> None:
    kept = History(5, 2, 5, LARGE)
    add(kept, 1, 2, 3)
    assert shown(kept, since) == (False, [2, 3], None)


def test_recovery_is_possible_from_the_seq_of_a_deleted_message() -> None:
    kept = History(5, 2, 5, LARGE)
    add(kept, 1, 2, 3)
    kept.delete([Deletion(3, "id-3", 3), Deletion(1, "id-1", 3)])
    assert shown(kept, 3) == (True, [], ["id-3", "id-1"])
    assert shown(kept, 2) == (True, [], ["id-1"])
    add(kept, 4)
    assert shown(kept, 4) == (True, [], [])


def test_recovery_that_does_not_fit_into_a_frame_is_not_offered() -> None:
    limit = 10_000
    kept = History(100, 100, 100, limit)
    add(kept, *range(1, 41), size=500)
    recovered, seqs, _ = shown(kept, 0)
    assert (recovered, seqs[-1], len(seqs) < 40) == (False, 40, True)
    assert all(len(kept.frame(str(since))) <= limit for since in range(41))
    assert shown(kept, seqs[0] - 1)[0]


def test_ids_of_deleted_messages_count_for_the_size_of_a_recovery() -> None:
    kept = History(500, 100, 500, 10_000)
    add(kept, *range(1, 401))
    uuid = "00000000-0000-4000-8000-000000000000"
    kept.delete([Deletion(seq, uuid, 400) for seq in range(1, 301)])
    assert shown(kept, 400)[0] is False
    assert all(len(kept.frame(str(since))) <= 10_000 for since in (0, 50, 100, 200, 390, 400))
    assert shown(kept, 100)[0] is False
    add(kept, 401)
    assert shown(kept, 401) == (True, [], [])


def test_plain_history_is_encoded_once_and_anew_after_each_change() -> None:
    kept = History(5, 3, 5, LARGE)
    add(kept, 1, 2, 3, 4)
    first = kept.frame(None)
    assert kept.frame(None) is first
    kept.delete([Deletion(3, "id-3", 4)])
    assert shown(kept) == (False, [1, 2, 4], None)
    kept.prune(1)
    assert shown(kept) == (False, [2, 4], None)


def test_history_that_was_filled_up_promises_no_more_than_before() -> None:
    kept = History(2, 2, 2, LARGE)
    add(kept, 1, 2, 3)
    kept.delete([Deletion(1, "id-1", 3)])
    add(kept, 4, 5, 6)
    kept.delete([Deletion(5, "id-5", 6), Deletion(6, "id-6", 6)])  # with which it forgets what was deleted at 3
    assert kept.gap() == (7, 2)
    kept.fill([(message(seq), frames.encode_data(message(seq), "author")) for seq in (4, 3)])
    assert shown(kept) == (False, [3, 4], None)
    add(kept, 7)
    assert shown(kept, 3) == (False, [4, 7], None)
