"""The limits on what a client may send, which the server, the endpoints and the client share."""

MAX_FRAME = 65_536  # bytes of a frame, and of the body of an HTTP request
FLOOD_FRAMES = 200  # frames of any kind, also those below ASGI, after which a client is closed if it sent them within
FLOOD_SECONDS = 10.0
FLOOD_BAD_FRAMES = 20  # the same for frames that can't be understood
