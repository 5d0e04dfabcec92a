"""Our server with times so short that a test can wait for them: `python -m tests.support.short_timeouts`."""

from app.__main__ import main
from app.server.request_protocol import RequestProtocol

RequestProtocol.header_timeout = 0.5
RequestProtocol.stall_timeout = 2.0  # longer than a busy machine stands still
RequestProtocol.check_interval = 0.1

if __name__ == "__main__":
    main()
