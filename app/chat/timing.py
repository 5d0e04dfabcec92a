"""The times and limits of a room that its settings do not name; tests shorten them."""

from __future__ import annotations

from dataclasses import dataclass

from app.wire.sender import CLOSE_TIMEOUT


@dataclass(frozen=True, slots=True)
class RoomTiming:
    """Times (seconds) and limits of a room."""

    close_timeout: float = CLOSE_TIMEOUT
    announce_delay: float = 0.25  # within which changes are announced together
    post_timeout: float = 10.0  # of a post over HTTP; the engine's own ends before, unless the store is another one now
    rules_tries: int = 50  # to replace rules that other workers replace at the same time
    rules_retry: float = 0.02  # between two tries; this worker learns of the others' rules meanwhile
    max_bans: int = 1000  # each change of the rules is written and read as a whole
    delete_step: int = 100  # messages that are deleted at once: others wait for some 6 ms
    delete_pause: float = 0.01  # between two steps; the clients may read meanwhile
