"""From typed text to a draft: cleaned, checked, escaped."""

from __future__ import annotations

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
