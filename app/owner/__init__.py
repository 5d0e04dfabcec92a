"""How the owner is reached when nobody of the owner's is here.

Knows messages and the engine; knows nothing of connections. Read `notifier` first (when there is something to send),
then `formats` (what a notification says, for each service) and `webhook` (how it is delivered).
"""
