"""Our own uvicorn, and the protocols below ASGI.

Knows sockets and bytes; of the chat it knows only that it can be drained. Read `server` first (start, signals,
workers), then `socket_protocol` and `request_protocol` (the limits on what a hostile peer can hold open) and
`event_queue`.
"""
