"""Our own uvicorn, and the two protocols that it uses below ASGI.

Owns the process, its signals and workers, and the limits on what a hostile peer can hold open. Knows sockets and bytes;
of the chat it knows only that it can be drained. Read `server` first, then `socket_protocol`,
then `request_protocol`.
"""
