"""From what somebody typed to a draft: cleaned, checked, escaped.

Knows the settings, nothing of connections or of the store.
"""

from __future__ import annotations

import secrets
import time
import uuid

from app import security
from app.config import Settings
from app.exceptions import BlockedContent
from app.message import Draft
from app.roster import Session
from app.words import Words


class Composer:
    """Makes drafts under one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._blocked = Words(settings.blocked_words)

    def compose(self, session: Session, content: str, nonce: str | None) -> Draft:
        """The draft of a message. Raises EmptyMessage, MessageTooLong, BlockedContent."""
        settings = self._settings
        text = security.clean_text(content, settings.max_message_length, settings.block_dangerous_markup)
        if self._blocked.found_in(text):
            raise BlockedContent("The message holds a word that the owner does not want here. Say it differently.")
        now = time.time()
        return Draft(
            id=message_id(now),
            session=session.id,
            username=session.username,
            content=security.escape(text),
            text=text,
            timestamp=now,
            nonce=nonce,
            role=session.role,
        )


def message_id(now: float) -> str:
    """A UUID of version 7 (RFC 9562): begins with the time, so that what is stored together is together in an index."""
    random = secrets.randbits(74)
    return str(uuid.UUID(int=int(1000 * now) << 80 | 7 << 76 | random >> 62 << 64 | 2 << 62 | random & (1 << 62) - 1))
