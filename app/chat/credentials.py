"""Who somebody is: session tokens, the owner's token, and the names that are nobody's.

Knows nothing of connections. Tokens travel as subprotocols, never in the URL, and are never logged.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from app.exceptions import UsernameReserved

SUBPROTOCOL = "chat.v1"
BEARER = "bearer."
SESSION_PREFIX = "s1."
OWNER_SESSION = "owner"

# 0 for o, and 1 and i for l, so that any of them looks like the others.
_LOOKS = str.maketrans("01i", "oll", "-_")


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a newcomer brings. `limit_key`: see security.limit_key; `bearer`: its token, if any."""

    username: str | None
    address: str
    limit_key: str | None
    subprotocols: tuple[str, ...] = ()

    @property
    def supports_tokens(self) -> bool:
        """Whether its client knows tokens, and so can prove on returning who it is."""
        return SUBPROTOCOL in self.subprotocols

    @property
    def bearer(self) -> str | None:
        """The credential that it offers."""
        return next((offer[len(BEARER) :] for offer in self.subprotocols if offer.startswith(BEARER)), None)


class Credentials:
    """Makes and checks tokens under one secret."""

    def __init__(self, secret: str, owner_token: str, reserved: Iterable[str]) -> None:
        self._secret = secret.encode()
        self._owner_token = owner_token.encode()
        self._reserved = {_look(name) for name in reserved}

    def is_owner(self, bearer: str | None) -> bool:
        """Whether this is the owner's token; takes as long whichever it is."""
        return bool(self._owner_token and bearer) and hmac.compare_digest((bearer or "").encode(), self._owner_token)

    def check_reserved(self, username: str) -> None:
        """Raises UsernameReserved for names that are the owner's or the service's, or look like one of these."""
        if _look(username) in self._reserved:
            raise UsernameReserved

    def issue(self, username: str, session: str) -> str:
        """A token that proves a name: `s1.<name>.<session>.<HMAC-SHA-256 of what is before it>`."""
        claim = f"{SESSION_PREFIX}{username}.{session}"
        return f"{claim}.{self._sign(claim)}"

    def session_of(self, bearer: str | None, username: str | None = None) -> str | None:
        """The session that a token proves, for this name if one is given.

        None for a token that is another's, forged, or no token.
        """
        claim, _, signature = (bearer or "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(claim).encode()):
            return None
        _, name, session = claim.split(".")
        if session == OWNER_SESSION:  # which none is issued for: whoever knows the secret is not yet the owner
            return None
        return session if username is None or name.lower() == username.lower() else None

    def mark(self, limit_key: str) -> str:
        """What stands for an address where it is kept: it can be compared with, and not be read."""
        return self._sign(f"address {limit_key}")

    def _sign(self, claim: str) -> str:
        digest = hmac.digest(self._secret, claim.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _look(username: str) -> str:
    return username.lower().translate(_LOOKS)
