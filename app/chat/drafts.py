"""From typed text to a draft: cleaned, checked, escaped."""

from __future__ import annotations

import secrets
import time
import uuid

from app import security
from app.chat.blocklist import Blocklist
from app.config import Settings
from app.engines.presence import Session
from app.exceptions import BlockedContent
from app.message import Draft


def make_draft(settings: Settings, blocklist: Blocklist, session: Session, typed: str, nonce: str | None) -> Draft:
    """The draft of a message that a session posts. Raises EmptyMessage, MessageTooLong, BlockedContent."""
    text = security.clean_text(typed, settings.max_message_length, settings.block_dangerous_markup)
    if blocklist.found_in(text):
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
    """A UUID of version 7 (RFC 9562). It begins with the time, so that new messages are together in an index."""
    random = secrets.randbits(74)
    return str(uuid.UUID(int=int(1000 * now) << 80 | 7 << 76 | random >> 62 << 64 | 2 << 62 | random & (1 << 62) - 1))
