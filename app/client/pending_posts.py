"""A client's own posts that have no answer yet, and which of them may be sent now.

An acknowledgement is the message itself coming back with its nonce, or `hidden` with the nonce.
"""

from __future__ import annotations

import asyncio
import json
import uuid

from app.wire.limits import MAX_FRAME

WINDOW = 16  # posts in flight: resending more at once would look like a flood
RETRY = 1.0  # seconds after which a refused post is sent again, where the refusal does not say when
TRY_AGAIN = ("unavailable", "rate_limited", "slow_mode")  # refusals that pass


class PendingPosts:
    """Keeps each post until it is answered, under the same nonce however often it is sent.

    `wake` is set when there may be something to send.
    """

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.pause = 0.0  # seconds to wait before the next one
        self._frames: dict[str, bytes] = {}  # by nonce
        self._in_flight: set[str] = set()
        self._window = 0
        self._answered = asyncio.Event()

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, text: str) -> str:
        """Adds a post and returns its nonce. Raises ValueError for a text that no frame can hold."""
        nonce = str(uuid.uuid4())
        frame = json.dumps({"type": "message", "content": text, "nonce": nonce}, ensure_ascii=False).encode()
        if len(frame) > MAX_FRAME:
            raise ValueError("the text is too long")
        self._frames[nonce] = frame
        self.wake.set()
        return nonce

    def hold(self) -> None:
        """Counts all posts as not sent, because the connection ended. Nothing is sent until `release`."""
        self._in_flight.clear()
        self._window, self.pause = 0, 0.0

    def release(self) -> None:
        """Lets everything without an answer be sent, in order, because the client is in the room."""
        self._window = WINDOW
        self.wake.set()

    def next_frame(self) -> bytes | None:
        """Returns the next frame to send, or None while none may be sent."""
        if self.pause or len(self._in_flight) >= self._window:
            return None
        nonce = next((nonce for nonce in self._frames if nonce not in self._in_flight), None)
        if nonce is None:
            return None
        self._in_flight.add(nonce)
        return self._frames[nonce]

    def acknowledge(self, nonce: str | None) -> None:
        """Forgets a post that is in the room, or refused for good. Safe to call with any nonce, and again."""
        if nonce is None or self._frames.pop(nonce, None) is None:
            return
        if nonce in self._in_flight:
            self._in_flight.remove(nonce)
            self._window = min(self._window + 1, WINDOW)
        self._answered.set()
        self.wake.set()

    def refuse(self, nonce: str | None, code: str, wait: float) -> bool:
        """Sends the post again after `wait` seconds, one at a time at first, or gives it up. False: it is unknown."""
        if nonce not in self._frames:
            return False
        if code in TRY_AGAIN:
            self._in_flight.discard(nonce)
            self._window = min(self._window, 1)
            self.pause = max(self.pause, wait or RETRY)
            self.wake.set()
        else:
            self.acknowledge(nonce)
        return True

    async def settle(self, at_most: int) -> None:
        """Waits until at most that many posts are unanswered."""
        while len(self._frames) > at_most:
            self._answered.clear()
            await self._answered.wait()
