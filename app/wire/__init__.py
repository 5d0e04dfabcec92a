"""What travels to and from a client.

Knows nothing of rooms, stores or Starlette. Read `frames` first (what the server sends), then `client_frames` (what
clients may send), `prepared` (frames encoded once for everybody) and `sender` (the two ways to a socket).
"""
