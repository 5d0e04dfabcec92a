"""What can go wrong through the client or the world, each with what the wire must say about it.

Knows the codes and sentences alone. Any exception that is not a ChatError is our own fault.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import ClassVar


class CloseCode(IntEnum):
    """Close codes (RFC 6455, section 7.4). Of our own, 4000-4499 ask the client to reconnect, 4500-4999 not to."""

    NORMAL = 1000
    GOING_AWAY = 1001
    REFUSED = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    FULL = 1013
    SILENT = 4000
    TOO_SLOW = 4001
    REMOVED = 4500
    FLOOD = 4501

    @property
    def reason(self) -> str:
        """The name in words, for the close frame."""
        return self.name.replace("_", " ").lower()


def reconnects(code: int) -> bool:
    """Whether a client should come back after a close code, also after one that it does not know."""
    return code not in (CloseCode.NORMAL, CloseCode.REFUSED, CloseCode.TOO_BIG) and not 4500 <= code < 5000


class StoreError(Exception):
    """The engine's store can't be opened, or can't be written to now; the text says what to do."""


class ChatError(Exception):
    """Refuses one frame and keeps the connection; `code` is for programs, the text for people.

    Over HTTP `status` says the same, and `field` which part of the request it is about.
    """

    code: ClassVar[str]
    message: ClassVar[str]
    status: ClassVar[int] = 422
    over_http: ClassVar[bool] = False  # whether it refuses HTTP requests, too; the documents are made from this

    field: str | None = None
    retry_after: float | None = None  # seconds, where waiting helps

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.message)


class InvalidFrame(ChatError):
    code = "invalid_frame"
    message = 'This frame is not understood. Send one JSON object, such as {"type": "message", "content": "Hello"}.'


class UnsupportedData(ChatError):
    code = "unsupported_data"
    message = "Binary frames are not supported. Send JSON in a text frame."


class EmptyMessage(ChatError):
    code = "empty_message"
    over_http = True
    message = "The message is empty. Write something visible."


class MessageTooLong(ChatError):
    code = "message_too_long"
    over_http = True

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"The message has {length} characters, {limit} are allowed. Shorten it or send it in parts.")


class BlockedContent(ChatError):
    code = "blocked_content"
    over_http = True
    message = "The message holds markup that would run as a script. Send it without that markup."


class Unavailable(ChatError):
    code = "unavailable"
    over_http = True
    status = 503
    message = "The message could not be stored. Send it again with the same nonce in a moment."


class NonceReused(ChatError):
    code = "nonce_reused"
    over_http = True
    status = 409
    message = "This nonce was used for another message. Use a new random nonce for each message."


class Paused(ChatError):
    code = "paused"
    message = "Only the owner can write at the moment. Try again when the room is open."


class SlowMode(ChatError):
    code = "slow_mode"

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"Slow mode is on. Write again in {math.ceil(retry_after)} s.")
        self.retry_after = retry_after


class ConnectionRefused(ChatError):
    """Refuses the whole connection: its frame is followed by a close with `close_code`."""

    close_code: ClassVar[CloseCode] = CloseCode.REFUSED


class InvalidUsername(ConnectionRefused):
    code = "invalid_username"

    def __init__(self, limit: int) -> None:
        super().__init__(f"Connect with ?username= and 1 to {limit} of the characters A-Z, a-z, 0-9, - and _.")


class UsernameTaken(ConnectionRefused):
    code = "username_taken"
    message = "Somebody else is using this name. Choose another one."


class UsernameReserved(ConnectionRefused):
    code = "username_reserved"
    message = "This name is reserved, or looks like one that is. Choose another one."


class InvalidToken(ConnectionRefused):
    code = "invalid_token"
    over_http = True
    status = 401
    message = "This is not the owner's token. Check OWNER_TOKEN, or connect without a token."


class Banned(ConnectionRefused):
    code = "banned"
    message = "The owner has banned you from this chat."


class RateLimited(ConnectionRefused):
    """Too much, too fast. Keeps a connection that is open; refuses one that is not, as if the room were full."""

    code = "rate_limited"
    over_http = True
    status = 429
    close_code = CloseCode.FULL

    def __init__(self, retry_after: float, why: str = "That was too fast.") -> None:
        super().__init__(f"{why} Try again in {max(1, math.ceil(retry_after))} s.")
        self.retry_after = retry_after


class TooManyConnections(ConnectionRefused):
    code = "too_many_connections"
    message = "Too many connections come from your address. Close one, or try again later."
    close_code = CloseCode.FULL


class ServerFull(ConnectionRefused):
    code = "server_full"
    message = "The room is full. Try again in a few minutes."
    close_code = CloseCode.FULL


class RequestRefused(ChatError):
    """Refuses an HTTP request."""

    over_http = True


class OriginNotAllowed(RequestRefused):
    """Refuses a handshake."""

    code = "origin_not_allowed"
    status = 403
    message = "Pages of this origin may not connect. Its scheme, host and port must be listed in CORS_ORIGINS."


class Restarting(RequestRefused):
    """Refuses a handshake."""

    code = "restarting"
    status = 503
    message = "The server restarts. Come back in a moment."


class Unauthorized(RequestRefused):
    code = "unauthorized"
    status = 401
    message = "This takes a token. Send the header Authorization: Bearer <token>."


class Forbidden(RequestRefused):
    code = "forbidden"
    status = 403
    message = "This takes the owner's token, and yours is a visitor's."


class NotFound(RequestRefused):
    code = "not_found"
    status = 404


class Hidden(RequestRefused):
    code = "hidden"
    status = 410
    message = "The message with this nonce was stored, and is hidden."


class InvalidRequest(RequestRefused):
    """`field`: of the body or of the query; None for the body as a whole."""

    code = "invalid_request"

    def __init__(self, field: str | None, message: str) -> None:
        super().__init__(message)
        self.field = field


class RequestTooLarge(RequestRefused):
    code = "request_too_large"
    status = 413
    message = "The body of the request is over 64 KiB."


def refusals(kind: type[ChatError] = ChatError) -> list[type[ChatError]]:
    """Every refusal, or every one of a kind: the classes without subclasses, for a class with some has no code."""
    return [leaf for child in kind.__subclasses__() for leaf in refusals(child)] or [kind]


def codes(kind: type[ChatError] = ChatError) -> set[str]:
    """The code of every refusal, or of every one of a kind."""
    return {refusal.code for refusal in refusals(kind)}
