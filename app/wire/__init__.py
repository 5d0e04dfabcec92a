"""What travels to and from a client: the frames, and the two ways to a socket.

Knows nothing of rooms, stores or Starlette. Read `frames` first (what the server sends, encoded once for all
receivers), then `client_frames` (what clients may send), and `sender` (the ways to a socket).
"""
