"""The reference client, and its terminal. It shares only the close codes and two small tools with the server.

Read `client` first (connect, recover, reconnect), then `pending_posts` (exactly once) and `__main__` (the terminal).
"""
