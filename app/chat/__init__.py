"""The room: who is here, what is said, and who may say it.

Knows the engine and the frames; knows nothing of ASGI, HTTP, disks or Redis. Read `room` first (a post and its
delivery), then `admission` and `credentials` (who gets in), `registry` (connections and fan-out), `history` (what a
newcomer sees), `moderation` with `rules` (what the owner decides), and `announcer` and `heartbeat` (what is sent beside
messages). `drafts`, `blocklist`, `limits`, `throttle` and `timing` are small tools of these.
"""
