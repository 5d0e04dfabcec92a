"""The engine for many workers and machines. Importing this package needs Redis' driver.

Read `client` first (the keys and the scripts), then `store` (one worker's engine), `presence` (who is here, over all
workers) and `archive` (export and wipe). The Lua scripts lie beside them.
"""
