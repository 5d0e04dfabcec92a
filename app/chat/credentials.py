"""Session tokens, the owner's token, reserved names, and the hashes that stand for addresses.

Tokens travel as subprotocols, never in the URL, and are never logged.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass

from app import security
from app.config import Settings
from app.exceptions import UsernameReserved

SUBPROTOCOL = "chat.v1"
BEARER = "bearer."
SESSION_PREFIX = "s1."
OWNER_SESSION = "owner"

# 0 for o, and 1 and i for l, so that any of them looks like the others.
_LOOKS = str.maketrans("01i", "oll", "-_")


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client sends to get in. `limit_key`: see security.limit_key."""

    username: str | None
    address: str
    limit_key: str | None
    subprotocols: tuple[str, ...] = ()

    @property
    def supports_tokens(self) -> bool:
        """Whether the client knows session tokens, and so can prove its name when it comes back."""
        return SUBPROTOCOL in self.subprotocols

    @property
    def bearer(self) -> str | None:
        """The token that the client offers."""
        return next((offer[len(BEARER) :] for offer in self.subprotocols if offer.startswith(BEARER)), None)


class Credentials:
    """Makes and checks tokens. `secret` signs them; it comes with the store when SECRET_KEY is not set."""

    def __init__(self, settings: Settings, secret: str) -> None:
        self.secret = settings.secret_key or secret
        self._owner_token = settings.owner_token.encode()
        self._reserved = {_look(name) for name in (*settings.reserved_usernames, settings.owner_username)}
        self._proxies = settings.forwarded_allow_ips

    def is_owner(self, bearer: str | None) -> bool:
        """Whether this is the owner's token. Takes the same time for every token."""
        return bool(self._owner_token and bearer) and hmac.compare_digest((bearer or "").encode(), self._owner_token)

    def check_reserved(self, username: str) -> None:
        """Raises UsernameReserved for the names of the owner and the service, and for names that look like these."""
        if _look(username) in self._reserved:
            raise UsernameReserved

    def issue(self, username: str, session: str) -> str:
        """A token that proves a name: `s1.<name>.<session>.<HMAC-SHA-256 of the part before>`."""
        claim = f"{SESSION_PREFIX}{username}.{session}"
        return f"{claim}.{self._sign(claim)}"

    def session_of(self, bearer: str | None, username: str | None = None) -> str | None:
        """The session that a token proves, and proves for `username` if one is given; None for any other token."""
        claim, _, signature = (bearer or "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(claim).encode()):
            return None
        _, name, session = claim.split(".")
        if session == OWNER_SESSION:  # no token is issued for it: the secret alone does not make an owner
            return None
        return session if username is None or name.lower() == username.lower() else None

    def address_hash(self, limit_key: str | None) -> str:
        """A hash that stands for an address in bans; it can be compared, and the address can't be read from it.

        Empty for an address that may be shared by many people and must not be banned: the server's own machine, a
        trusted proxy, and a proxy that is not configured.
        """
        if limit_key is None or security.is_shared(limit_key, self._proxies):
            return ""
        return self._sign(f"address {limit_key}")

    def author_of(self, session: str) -> str:
        """Returns 12 characters that stand for a session in messages. They prove nothing, and don't lead back to it."""
        return self._sign(f"author {session}")[:12]

    def _sign(self, claim: str) -> str:
        digest = hmac.digest(self.secret.encode(), claim.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _look(username: str) -> str:
    return username.lower().translate(_LOOKS)
