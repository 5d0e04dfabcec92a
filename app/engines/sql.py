"""The database: its tables, step by step, and every statement that the SQLite engine runs."""

from __future__ import annotations

# Step n takes a database from schema version n to n + 1; steps are only ever added.
SCHEMA = (
    """
    CREATE TABLE room (epoch TEXT NOT NULL, secret TEXT NOT NULL, probes INTEGER NOT NULL);
    CREATE TABLE message (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        session TEXT NOT NULL,
        username TEXT NOT NULL,
        content TEXT NOT NULL,
        text TEXT NOT NULL,
        timestamp REAL NOT NULL,
        nonce TEXT,
        role TEXT NOT NULL
    );
    CREATE UNIQUE INDEX message_by_nonce ON message (session, nonce) WHERE nonce IS NOT NULL;
    """,
    """
    ALTER TABLE room ADD COLUMN rules TEXT NOT NULL DEFAULT '';
    ALTER TABLE room ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE message ADD COLUMN hidden INTEGER;
    CREATE INDEX message_by_hiding ON message (hidden) WHERE hidden IS NOT NULL;
    """,
    """
    CREATE INDEX message_by_id ON message (id COLLATE NOCASE) WHERE text != '';
    """,
)
ROOM_COLUMNS = {"epoch", "secret", "probes"}  # since 0.1.0
NEW_ROOM = "INSERT INTO room (epoch, secret, probes) VALUES (?, ?, 0)"
NEW_EPOCH = "UPDATE room SET epoch = ?"
ROOM = "SELECT epoch, secret, rules, pruned FROM room"
# AUTOINCREMENT keeps the highest seq ever given here, also when that message is gone.
LAST_SEQ = "SELECT seq FROM sqlite_sequence WHERE name = 'message'"
PROBE = "UPDATE room SET probes = probes + 1"
# One statement a batch, because the thread must wait for the interpreter after each.
INSERT = "INSERT INTO message (id, session, username, content, text, timestamp, nonce, role, seq) VALUES "
ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?)"
SELECT = "SELECT id, session, username, content, text, timestamp, nonce, role, seq, text = '' FROM message"
# CROSS JOIN: from the pairs to the index, where IN would look through the whole table.
BY_NONCE = "WITH asked (session_, nonce_) AS (VALUES %s) " + SELECT.replace(
    "FROM message", "FROM asked CROSS JOIN message ON session = session_ AND nonce = nonce_"
)
PAIR = "(?, ?)"
# A row without text is a deleted or pruned message, kept for its nonce and for clients that recover.
NEWEST = SELECT + " WHERE seq > ? AND seq < ? AND text != '' ORDER BY seq DESC LIMIT ?"
PAGE = SELECT + " WHERE seq > ? AND seq < ? AND text != '' ORDER BY seq LIMIT ?"
# Names and sessions have no index: each would cost a batch of 50 messages 0.6 ms, and would save a search 0.2 s in a
# million, which no message waits for.
FIND = SELECT + " WHERE seq > ? AND seq < ? AND text != '' AND %s = ? COLLATE NOCASE ORDER BY seq DESC LIMIT ?"
DELETIONS = "SELECT seq, id, hidden FROM message WHERE hidden >= ? ORDER BY hidden, seq"
DELETE = "UPDATE message SET hidden = ?, username = '', content = '', text = '' WHERE seq = ? AND text != ''"
REPLACE_RULES = "UPDATE room SET rules = ? WHERE rules = ?"
FORGET = "UPDATE message SET username = '', content = '', text = '' WHERE seq > ? AND seq <= ? AND text != ''"
PRUNED = "UPDATE room SET pruned = ?"
# Deletions that are newer than what is pruned stay, for clients that recover. Subqueries, because a join with the room
# would look through all rows after it.
DROP = """
DELETE FROM message WHERE seq IN (
    SELECT seq FROM message
    WHERE seq <= (SELECT pruned FROM room) AND (hidden IS NULL OR hidden < (SELECT pruned FROM room))
    ORDER BY seq LIMIT ?
) AND timestamp < ?
"""
DROP_STEP = 100  # rows at once: more than are pruned at once, so that what stayed for its nonce goes in time
