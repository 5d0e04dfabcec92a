"""Token buckets and windows, on a clock of the test's own."""

from __future__ import annotations

import pytest

from app.chat.limits import Buckets, Window
from tests.support.fakes import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spend(buckets: Buckets, key: str, count: int) -> None:
    for _ in range(count):
        assert buckets.wait(key) == 0
        buckets.take(key)


def test_bucket_gives_its_limit_at_once_and_then_one_at_a_time(clock: Clock) -> None:
    buckets = Buckets(10, 5.0, clock)
    spend(buckets, "ada", 10)
    assert buckets.wait("ada") == 0.5
    clock.now += 0.5
    spend(buckets, "ada", 1)
    assert buckets.wait("ada") == 0.5


def test_token_that_was_given_back_is_there(clock: Clock) -> None:
    buckets = Buckets(2, 10.0, clock)
    buckets.give_back("ada")
    spend(buckets, "ada", 2)
    buckets.give_back("ada")
    spend(buckets, "ada", 1)
    assert buckets.wait("ada") == 5.0
    for _ in range(3):
        buckets.give_back("ada")
    spend(buckets, "ada", 2)
    assert buckets.wait("ada") == 5.0


def test_wait_is_the_truth(clock: Clock) -> None:
    buckets = Buckets(3, 10.0, clock)
    spend(buckets, "ada", 3)
    clock.now += 1.2345
    wait = buckets.wait("ada")
    clock.now += wait - 0.002
    assert buckets.wait("ada") > 0
    clock.now += 0.002
    spend(buckets, "ada", 1)


def test_asking_takes_nothing_and_keys_are_apart(clock: Clock) -> None:
    buckets = Buckets(1, 10.0, clock)
    assert [buckets.wait("ada") for _ in range(3)] == [0, 0, 0]
    spend(buckets, "ada", 1)
    spend(buckets, "bob", 1)
    assert buckets.wait("ada") == 10


def test_bucket_never_holds_more_than_its_limit(clock: Clock) -> None:
    buckets = Buckets(2, 1.0, clock)
    clock.now += 1000
    spend(buckets, "ada", 2)
    assert buckets.wait("ada") > 0


def test_no_limit_remembers_nobody(clock: Clock) -> None:
    buckets = Buckets(0, 1.0, clock)
    spend(buckets, "ada", 1000)
    assert not buckets._spent


def test_memory_is_bounded_and_the_longest_quiet_is_forgotten(clock: Clock) -> None:
    buckets = Buckets(1, 1000.0, clock, remembered=2)
    for key in ("ada", "bob", "eve"):
        spend(buckets, key, 1)
    assert len(buckets._spent) == 2
    assert [buckets.wait(key) > 0 for key in ("ada", "bob", "eve")] == [False, True, True]


def test_bucket_that_is_full_again_is_forgotten_and_no_sooner(clock: Clock) -> None:
    buckets = Buckets(2, 10.0, clock)
    spend(buckets, "ada", 2)
    clock.now += 9.9
    buckets.forget(10)
    assert buckets.wait("ada") == 0
    spend(buckets, "ada", 1)
    assert buckets.wait("ada") > 0
    clock.now += 10.0
    buckets.forget(10)
    assert not buckets._spent


def test_forgetting_drops_so_many_at_most_and_the_oldest_first(clock: Clock) -> None:
    buckets = Buckets(1, 10.0, clock)
    for key in ("ada", "bob", "eve", "kim"):
        clock.now += 1
        spend(buckets, key, 1)
    clock.now += 9  # kim has to wait for one second more
    buckets.forget(2)
    assert list(buckets._spent) == ["eve", "kim"]
    buckets.forget(10)
    assert list(buckets._spent) == ["kim"]


def test_token_that_is_given_back_keeps_no_other_bucket_from_being_forgotten(clock: Clock) -> None:
    buckets = Buckets(2, 10.0, clock)
    spend(buckets, "ada", 2)
    spend(buckets, "bob", 2)
    clock.now += 9
    buckets.give_back("ada")
    clock.now += 1
    buckets.forget(10)
    assert list(buckets._spent) == ["ada"]


def test_table_in_use_holds_no_more_than_the_keys_of_its_window(clock: Clock) -> None:
    buckets = Buckets(5, 10.0, clock)
    sizes = []
    for number in range(1000):
        spend(buckets, f"user{number}", 1)
        clock.now += 0.1
        sizes.append(len(buckets._spent))
    assert max(sizes) <= 101


def test_table_shrinks_by_one_at_each_take_while_it_holds_what_may_be_forgotten(clock: Clock) -> None:
    buckets = Buckets(1, 10.0, clock)
    for number in range(100):
        spend(buckets, f"user{number}", 1)
    clock.now += 10
    for number in range(50):
        spend(buckets, f"late{number}", 1)
        assert len(buckets._spent) == 99 - number


def test_window_is_full_at_its_limit_within_its_seconds_and_not_before() -> None:
    window = Window(3, 10.0)
    assert [window.record(now) for now in (0.0, 5.0, 9.9)] == [False, False, True]
    window = Window(3, 10.0)
    assert [window.record(now) for now in (0.0, 5.0, 10.0, 14.9, 20.1)] == [False, False, False, True, False]


def test_window_forgets_what_is_long_past() -> None:
    window = Window(200, 10.0)
    for now in range(0, 10_000, 30):
        assert not window.record(float(now))
    assert len(window._times) == 1
