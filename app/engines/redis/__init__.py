"""The store for many workers and machines. Importing this package needs Redis' driver.

Read `client` first (the keys and the scripts), then `store` (messages and changes, export and wipe), `presence`
(who is here, over all workers) and `claim` (which worker notifies). The Lua scripts lie beside them.
"""
