"""What travels to and from a client: the frames, and the two ways to a socket.

Knows nothing of rooms, stores or Starlette. Read `frames` first (what the server sends), then `client_frames` (what
clients may send), `prepared` (frames encoded once for all receivers) and `sender` (the ways to a socket).
"""
