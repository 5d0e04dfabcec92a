"""Notifications to the owner, while the owner is not online.

Knows messages and the claim of notifications; knows nothing of connections, and not which engine there is. Read
`notifier` first (when there is something to send), then `formats` (what a notification says, for each service) and
`webhook` (how it is delivered).
"""
