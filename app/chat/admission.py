"""Who gets in, under which name, and how often something may be done."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import NoReturn

from app import security
from app.chat.credentials import OWNER_SESSION, SESSION_PREFIX, Credentials, Handshake
from app.chat.limits import Buckets
from app.chat.moderation import Moderation
from app.chat.registry import Connection, ConnectionRegistry
from app.config import Settings
from app.engines.presence import Session
from app.exceptions import Banned, Forbidden, InvalidToken, Paused, RateLimited, SlowMode, Unauthorized
from app.message import Message

WRONG_TOKENS = 5  # wrong owner tokens from one address in
WRONG_TOKENS_WINDOW = 60.0  # seconds, after which the next must wait
ERASURES = 5  # times that one address may delete its own messages in
OWN_DELETIONS = 20  # messages of its own that one address may delete one by one in
ERASURES_WINDOW = 60.0  # seconds
FORGET_STEP = 1000  # entries of each table, some 0.5 ms

logger = logging.getLogger(__name__)


class Admission:
    """Checks newcomers, messages and frames. The owner is exempt from capacity and rates."""

    def __init__(
        self, settings: Settings, registry: ConnectionRegistry, credentials: Credentials, moderation: Moderation
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._credentials = credentials
        self._moderation = moderation
        window, clock = settings.rate_limit_window, registry.clock
        self._messages = Buckets(settings.rate_limit_messages, window, clock)
        self._messages_by_address = Buckets(settings.rate_limit_address, window, clock)
        self._joins = Buckets(settings.rate_limit_joins, window, clock)
        self._wrong_tokens = Buckets(WRONG_TOKENS, WRONG_TOKENS_WINDOW, clock)
        self._erasures = Buckets(ERASURES, ERASURES_WINDOW, clock)
        self._own_deletions = Buckets(OWN_DELETIONS, ERASURES_WINDOW, clock)
        self._slow_mode = 0.0
        self._slow_accepted, self._slow_stored = Buckets(0, 0.0, clock), Buckets(0, 0.0, clock)

    def on_rules(self) -> None:
        """Called when the owner's rules have changed."""
        slow_mode, clock = self._moderation.rules.slow_mode, self._registry.clock
        if slow_mode != self._slow_mode:  # else everybody who waits goes on waiting
            self._slow_mode, limit = slow_mode, int(slow_mode > 0)
            self._slow_accepted, self._slow_stored = Buckets(limit, slow_mode, clock), Buckets(limit, slow_mode, clock)

    def check(self, handshake: Handshake) -> Session:
        """The session that a newcomer asks for. Raises ConnectionRefused.

        Capacity comes before the name: a full room says so whatever the name is.
        """
        if self._credentials.is_owner(handshake.bearer):
            name = self._settings.owner_username
            return Session(name, handshake.address, OWNER_SESSION, supports_tokens=True, role="owner")
        self._registry.check_capacity(handshake.limit_key)
        _spend(self._joins, handshake.limit_key)
        bearer = handshake.bearer
        if bearer is not None and not bearer.startswith(SESSION_PREFIX):
            self._refuse_token(handshake, InvalidToken())
        name = security.check_username(handshake.username, self._settings.max_username_length)
        self._credentials.check_reserved(name)
        session = self._credentials.session_of(bearer, name) or str(uuid.uuid4())
        known = self._credentials.session_of(bearer)  # also one that had another name
        if self._moderation.bans_newcomer(name, known or session, handshake.limit_key):
            raise Banned
        return Session(name, handshake.address, session, handshake.supports_tokens, limit_key=handshake.limit_key)

    def _refuse_token(self, handshake: Handshake, error: InvalidToken) -> NoReturn:
        key = handshake.limit_key or handshake.address
        if wait := self._wrong_tokens.wait(key):
            raise RateLimited(wait, "Too many wrong tokens came from your address.")
        self._wrong_tokens.take(key)
        logger.warning("Wrong token from %s", handshake.address)
        raise error

    def authorize(self, handshake: Handshake, bearer: str | None) -> None:
        """Lets the owner pass, over HTTP. Raises Unauthorized, InvalidToken, RateLimited, Forbidden for a visitor."""
        if bearer is None:
            raise Unauthorized
        if self._credentials.is_owner(bearer):
            return
        if self._credentials.session_of(bearer):
            raise Forbidden
        self._refuse_token(
            handshake, InvalidToken("This is not the owner's token, which is OWNER_TOKEN in the settings.")
        )

    def authorize_erasure(self, handshake: Handshake, bearer: str | None) -> str:
        """The session whose messages a visitor may delete. Raises as `authorize`, Forbidden for the owner."""
        if bearer is None:
            raise Unauthorized
        if self._credentials.is_owner(bearer):
            raise Forbidden("This is for visitors. Say whose messages to hide: DELETE /api/messages?username=…")
        session = self._credentials.session_of(bearer)
        if not session:
            fault = "This token proves no session here. The session frame of a connection has one that does."
            self._refuse_token(handshake, InvalidToken(fault))
        _spend(self._erasures, handshake.limit_key)
        return session

    def authorize_deletion(self, handshake: Handshake, bearer: str | None) -> str | None:
        """The session whose messages may be deleted one by one; None for the owner, who may delete any.

        Raises as `authorize`, but for a visitor.
        """
        session = None if self._credentials.is_owner(bearer) else self._credentials.session_of(bearer)
        if not session:
            self.authorize(handshake, bearer)
            return None
        _spend(self._own_deletions, handshake.limit_key)
        return session

    def check_rate(self, connection: Connection) -> None:
        """Takes a message's share of the rates. Raises Paused, SlowMode, RateLimited. Comes before all that costs."""
        session, address = connection.session, connection.limit_key
        if session.role == "owner":
            return
        if self._moderation.rules.paused:
            raise Paused
        key = _key(session)
        if wait := max(self._slow_accepted.wait(key), self._slow_stored.wait(session.id)):
            raise SlowMode(wait)
        if wait := max(self._messages.wait(key), self._messages_by_address.wait(address) if address else 0.0):
            raise RateLimited(wait)
        _spend(self._messages, key)
        _spend(self._messages_by_address, address)

    def on_accepted(self, session: Session) -> None:
        """Takes a slow-mode token: a message was accepted, and its sender waits now."""
        if session.role != "owner":
            self._slow_accepted.take(_key(session))

    def on_not_stored(self, session: Session) -> None:
        """Refunds a slow-mode token: the post was refused or was a duplicate."""
        self._slow_accepted.give_back(_key(session))

    def on_stored(self, messages: Sequence[Message]) -> None:
        """Takes a slow-mode token of each sender, for messages that other workers may have accepted."""
        for message in messages if self._slow_mode else ():
            if message.role != "owner" and not self._slow_stored.wait(message.session):
                self._slow_stored.take(message.session)

    def forget(self) -> None:
        """Drops buckets that can't limit anybody any more, a bounded number of entries at a call."""
        erasures = (self._erasures, self._own_deletions)
        rates = (self._messages, self._messages_by_address, self._joins, self._wrong_tokens, *erasures)
        for buckets in (*rates, self._slow_accepted, self._slow_stored):
            buckets.forget(FORGET_STEP)

    def is_flood(self, connection: Connection, bad: bool) -> bool:
        """Counts a frame, or a bad frame once more. Returns whether there were too many of late."""
        if connection.session.role == "owner":
            return False
        if bad:
            return connection.bad_frames.record(connection.last_seen)
        return self._settings.rate_limit_messages > 0 and connection.frames.record(connection.last_seen)


def _key(session: Session) -> str:
    """A client without tokens gets a new session when it comes back, but not a new bucket."""
    return session.id if session.supports_tokens else f"{session.address} {session.username.lower()}"


def _spend(buckets: Buckets, key: str | None) -> None:
    """Takes a token, or raises RateLimited. Without a key there is no limit."""
    if key is None:
        return
    if wait := buckets.wait(key):
        raise RateLimited(wait)
    buckets.take(key)
