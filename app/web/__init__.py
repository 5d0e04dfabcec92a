"""The endpoints: the WebSocket, the public and the owner's HTTP API, the pages and the documents.

Knows Starlette and the room; keeps no state of its own. Read `socket` first (one connection from handshake to end),
then `api` and `owner_api` with `requests` and `responses` (what HTTP takes and gives), and `pages` with `documents`
(the demo page, the widget, OpenAPI and AsyncAPI).
"""
