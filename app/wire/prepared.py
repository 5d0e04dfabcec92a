"""Frames that are sent together, in the two forms that servers take."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property


class PreparedFrames:
    """Frames that are sent together, in order. Each form is made once, however many connections they are written to."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.frames = frames
        self.size = sum(map(len, frames))  # bytes of JSON

    @cached_property
    def texts(self) -> list[str]:
        """The frames for an ASGI server, which adds the WebSocket headers itself."""
        return [frame.decode() for frame in self.frames]

    @cached_property
    def wire(self) -> bytes:
        """The bytes for a bare socket: unmasked, uncompressed text frames (RFC 6455, section 5.2)."""
        return b"".join([part for frame in self.frames for part in (_header(len(frame)), frame)])


def _header(length: int) -> bytes:
    if length < 126:
        return bytes((0x81, length))
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")
