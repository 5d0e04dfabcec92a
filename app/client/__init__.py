"""The reference client, and its terminal. Stands apart: it shares nothing with the server but the close codes.

Read `client` first (connect, recover, reconnect), then `pending_posts` (exactly once) and `__main__` (the terminal).
"""
