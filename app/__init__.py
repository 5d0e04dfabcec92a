"""Portfolio Backend: one public chat room over WebSocket, on Starlette alone."""
