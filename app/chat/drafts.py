"""From what somebody typed to a draft: cleaned, checked, escaped.

Knows the settings, nothing of connections or of the store.
"""

from __future__ import annotations

import time
import uuid

from app import security
from app.chat.blocklist import Blocklist
from app.config import Settings
from app.engines.presence import Session
from app.exceptions import BlockedContent
from app.message import Draft


class Composer:
    """Makes drafts under one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._blocked = Blocklist(settings.blocked_words)

    def compose(self, session: Session, content: str, nonce: str | None) -> Draft:
        """The draft of a message. Raises EmptyMessage, MessageTooLong, BlockedContent."""
        settings = self._settings
        text = security.clean_text(content, settings.max_message_length, settings.block_dangerous_markup)
        if self._blocked.found_in(text):
            raise BlockedContent("The message holds a word that the owner does not want here. Say it differently.")
        return Draft(
            id=str(uuid.uuid4()),
            session=session.id,
            username=session.username,
            content=security.escape(text),
            text=text,
            timestamp=time.time(),
            nonce=nonce,
            role=session.role,
        )
