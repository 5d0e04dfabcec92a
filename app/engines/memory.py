"""The engine that forgets: for tests and demonstrations. Nothing outlives the process."""

from __future__ import annotations

import secrets
import uuid
from collections import OrderedDict

from app.engines.base import Engine, number
from app.message import Draft, Message

NONCE_SECONDS = 24 * 3600.0  # how long a nonce is remembered (the wire contract's minimum)


class MemoryEngine(Engine):
    """Numbers drafts and remembers their nonces for a day."""

    def __init__(self, keep: int, batch_bytes: int) -> None:
        super().__init__(keep, batch_bytes)
        self._nonces: OrderedDict[tuple[str, str], Message] = OrderedDict()

    async def _open(self) -> list[Message]:
        self.epoch, self.seq, self.secret = str(uuid.uuid4()), 0, secrets.token_hex(32)
        return []

    async def _store(self, drafts: list[Draft]) -> list[Message]:
        messages = number(drafts, self.seq, self._nonces)
        self._forget_before(drafts[-1].timestamp - NONCE_SECONDS if drafts else 0.0)
        return messages

    def _forget_before(self, horizon: float) -> None:
        while self._nonces and next(iter(self._nonces.values())).timestamp < horizon:
            self._nonces.popitem(last=False)

    async def _close(self) -> None:
        self._nonces.clear()
