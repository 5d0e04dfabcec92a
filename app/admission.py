"""The door: who gets in, as whom, and how often one may do what.

Knows settings, credentials and the registry's capacity, nothing of messages.
"""

from __future__ import annotations

import logging
import uuid

from app import security
from app.config import Settings
from app.credentials import OWNER_SESSION, SESSION_PREFIX, Credentials, Handshake
from app.exceptions import InvalidToken, RateLimited
from app.limits import Buckets
from app.registry import Connection, ConnectionRegistry
from app.roster import Session

WRONG_TOKENS = 5  # wrong owner tokens from one address in
WRONG_TOKENS_WINDOW = 60.0  # seconds, after which the next must wait

logger = logging.getLogger(__name__)


class Admission:
    """Checks newcomers, messages and frames. The owner is exempt from capacity and rates.

    `secret` signs session tokens when the settings have none.
    """

    def __init__(self, settings: Settings, registry: ConnectionRegistry, secret: str) -> None:
        self.secret = secret
        self._settings = settings
        self._registry = registry
        reserved = (*settings.reserved_usernames, settings.owner_username)
        self._credentials = Credentials(settings.secret_key or secret, settings.owner_token, reserved)
        window, clock = settings.rate_limit_window, registry.clock
        self._messages = Buckets(settings.rate_limit_messages, window, clock)
        self._messages_by_address = Buckets(settings.rate_limit_address, window, clock)
        self._joins = Buckets(settings.rate_limit_joins, window, clock)
        self._wrong_tokens = Buckets(WRONG_TOKENS, WRONG_TOKENS_WINDOW, clock)

    def check(self, handshake: Handshake) -> Session:
        """The session that a newcomer asks for. Raises ConnectionRefused.

        Capacity comes before the name: a full room says so whatever the name is.
        """
        if self._credentials.is_owner(handshake.bearer):
            name = self._settings.owner_username
            return Session(name, handshake.address, OWNER_SESSION, provable=True, role="owner")
        self._registry.check_capacity(handshake.limit_key)
        _take(self._joins, handshake.limit_key)
        return self._check_visitor(handshake)

    def _check_visitor(self, handshake: Handshake) -> Session:
        bearer = handshake.bearer
        if bearer is not None and not bearer.startswith(SESSION_PREFIX):
            logger.warning("Wrong owner token from %s", handshake.address)
            _take(self._wrong_tokens, handshake.limit_key or handshake.address)
            raise InvalidToken
        name = security.check_username(handshake.username, self._settings.max_username_length)
        self._credentials.check_reserved(name)
        proven = self._credentials.session_of(bearer, name)
        return Session(name, handshake.address, proven or str(uuid.uuid4()), handshake.provable)

    def token(self, session: Session) -> str | None:
        """What proves a visitor's name on its next connection. The owner has a token already."""
        return None if session.role == "owner" else self._credentials.issue(session.username, session.id)

    def check_rate(self, connection: Connection) -> None:
        """Takes a message's share of the rates. Raises RateLimited. Comes before anything that costs."""
        session, address = connection.session, connection.limit_key
        if session.role == "owner":
            return
        # Who knows no tokens gets a new session on coming back, but not a new bucket.
        key = session.id if session.provable else f"{session.address} {session.username.lower()}"
        if wait := max(self._messages.wait(key), self._messages_by_address.wait(address) if address else 0.0):
            raise RateLimited(wait)
        _take(self._messages, key)
        _take(self._messages_by_address, address)

    def is_flood(self, connection: Connection, bad: bool) -> bool:
        """Counts a frame, or a bad frame once more; True when there were too many of late."""
        if connection.session.role == "owner":
            return False
        if bad:
            return connection.bad_frames.full(connection.heard)
        return self._settings.rate_limit_messages > 0 and connection.frames.full(connection.heard)


def _take(buckets: Buckets, key: str | None) -> None:
    """Takes a token, or raises RateLimited. Without a key there is no limit."""
    if key is None:
        return
    if wait := buckets.wait(key):
        raise RateLimited(wait)
    buckets.take(key)
