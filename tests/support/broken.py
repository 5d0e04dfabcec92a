"""Broken requests, handshakes and frames, as bytes. Each list is one kind of fault."""

from __future__ import annotations

import struct

from tests.support.running import HANDSHAKE

TOKEN = "broken-requests-are-sent-by-the-owner"
MASK = bytes(4)
END = struct.pack(">H", 1000)


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    """An HTTP/1.1 request."""
    return "\r\n".join((line, "Host: localhost", *headers, "", "")).encode("latin-1") + body


def handshake(*headers: str, path: str = "/ws/chat?username=ada", key: str = "AAAAAAAAAAAAAAAAAAAAAA==") -> bytes:
    """The request that opens a WebSocket."""
    fixed = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}")
    return request(f"GET {path} HTTP/1.1", *fixed, *headers)


def frame(opcode: int, data: bytes = b"", fin: bool = True, reserved: int = 0) -> bytes:
    """A frame from a client, masked with zeros (RFC 6455, section 5.2)."""
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
    return bytes([fin << 7 | reserved << 4 | opcode]) + size + MASK + data


def cuts(whole: bytes) -> list[bytes]:
    """Every beginning of it, and itself."""
    return [whole[:end] for end in range(len(whole) + 1)]


OWNERS = f"Authorization: Bearer {TOKEN}"
POST = request("POST /api/messages HTTP/1.1", OWNERS, "Content-Length: 17", body=b'{"content": "hi"}')
CHUNKED = request("POST /api/messages HTTP/1.1", OWNERS, "Transfer-Encoding: chunked")
TEXT = frame(1, b'{"type": "ping"}')
BINARY, CLOSE, PING, PONG = frame(2, b"ping"), frame(8, END), frame(9, b"ping"), frame(10, b"pong")
EACH = [frame(opcode, b"{}", fin=fin) for opcode in range(16) for fin in (True, False)]

REQUESTS = {
    "a request, cut": cuts(request("GET /health HTTP/1.1")),
    "a body, cut": [POST[:end] for end in range(len(POST) - 17, len(POST))],
    "a chunked body, cut": [CHUNKED + cut for cut in cuts(b'11\r\n{"content": "hi"}\r\n0\r\nX-Trailer: x\r\n\r\n')],
    "chunks that are none": [
        CHUNKED + chunk
        for chunk in (
            b"zz\r\n",
            b"-1\r\n{",
            b"fffffffffffffffff\r\n",
            b"1\r\nxx\r\n",
            b"\r\n\r\n",
            b"2;\0\r\n{}\r\n",
            b"0\r\n:",
        )
    ],
    "requests that are none": [
        b"\0",
        b"\r\n" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HELO localhost\r\n",
        request("GET / HTTP/9.9"),
        request("GET / HTTP/1.0"),
        request("GET /"),
        request("GET  HTTP/1.1"),
        request("get / HTTP/1.1"),
        request("NOTHING / HTTP/1.1"),
        request("CONNECT localhost:443 HTTP/1.1"),
        request("CONNECT / HTTP/1.1"),
        request("OPTIONS * HTTP/1.1"),
        request("GET * HTTP/1.1"),
        request("GET http://localhost/health HTTP/1.1"),
        request("GET http://[::1/ HTTP/1.1"),
        request("GET //:99999999/ HTTP/1.1"),
        request("GET ?# HTTP/1.1"),
        request("GET /%ff%00%zz?%ff=%zz HTTP/1.1"),
        request("GET /\xe4?\xff HTTP/1.1"),
        request("GET /health HTTP/1.1", "no colon"),
        request("GET /health HTTP/1.1", "X-Nul: \0"),
        request("GET /health HTTP/1.1", "X-Byte: \xff"),
        request("GET /health HTTP/1.1", " folded: yes"),
        request("GET /health HTTP/1.1", "Host: another"),
        request("GET /health HTTP/1.1", "Content-Length: -1"),
        request("GET /health HTTP/1.1", "Content-Length: 5", "Content-Length: 6"),
        request("GET /health HTTP/1.1", "Content-Length: 99999999999999999999999"),
        request("POST /api/messages HTTP/1.1", OWNERS, "Content-Length: 5", "Transfer-Encoding: chunked"),
        request("POST /api/messages HTTP/1.1", OWNERS, "Transfer-Encoding: gzip"),
        request("POST /api/messages HTTP/1.1", OWNERS, "Content-Length: 99", "Expect: 100-continue"),
        request("POST /api/messages HTTP/1.1", OWNERS, "Content-Length: 2", body=b"\xff\xfe"),
        request("PUT /api/bans/eve HTTP/1.1", OWNERS, "Content-Length: 99", body=b"{"),
        request("PATCH /api/room HTTP/1.1", OWNERS, "Content-Length: 99", body=b"{"),
        request("GET /health HTTP/1.1", "Connection: Upgrade", "Upgrade: h2c"),
        request("GET /health HTTP/1.1", "Connection: Upgrade"),
        request("GET /health HTTP/1.1") * 3 + b"GET",
        request("GET /openapi.json HTTP/1.1") * 30,
        request("HEAD /health HTTP/1.1") + b"junk",
        request("GET /health HTTP/1.1", "Connection: close") * 2,
        request("GET /api/messages HTTP/1.1", OWNERS) * 3,
        request("GET /api/messages HTTP/1.1", OWNERS) + handshake(),
        request("GET /health HTTP/1.1", "Connection: close") + handshake(),
        b"\0" + handshake(),
    ],
}
HANDSHAKES = {
    "a handshake, cut": cuts(HANDSHAKE.format(username="ada").encode()),
    "handshakes that are refused": [
        handshake(path="/nothing"),
        handshake(path="/health"),
        handshake(path="/nothing") + TEXT + CLOSE,
        handshake("Origin: https://elsewhere.example"),
        handshake("Origin: https://elsewhere.example", "Origin: null") + TEXT,
        handshake(path="/ws/chat"),
        handshake(path="/ws/chat?username=%ff%00"),
        handshake(path="/ws/chat?username=\xe4"),
        handshake(path="/ws/ch\xe4t"),
        handshake(path="http://localhost/ws/chat?username=ada"),
        handshake(path="*"),
        handshake(key=""),
        handshake(key="not base 64"),
        handshake(key="AAAA"),
        handshake("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
        handshake("Sec-WebSocket-Version: 8"),
        handshake("Sec-WebSocket-Protocol: ,, bearer.\xff, \0"),
        handshake("Sec-WebSocket-Protocol: chat.v1, bearer.s1.nothing"),
        handshake("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99"),
        handshake("Sec-WebSocket-Extensions: ;;;"),
        handshake("X-Long: " + "x" * 9000),
        handshake(*(f"X-{number}: x" for number in range(130))),
        handshake("Content-Length: 5") + b"12345",
        handshake("Transfer-Encoding: chunked") + b"5\r\n12345\r\n0\r\n\r\n",
        handshake().replace(b"GET", b"POST", 1),
        handshake().replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        handshake().replace(b"Connection: Upgrade\r\n", b"", 1),
        handshake().replace(b"Connection: Upgrade\r\n", b"Connection: close\r\n", 1),
        handshake().replace(b"Upgrade: websocket\r\n", b"Upgrade: websocket, h2c\r\n", 1),
    ],
    "frames before the answer": [handshake() + sent for sent in (TEXT, CLOSE, CLOSE * 2, PING, b"\xff\xff", *EACH)],
}
FRAMES = {
    "frames, cut": [cut for whole in (TEXT, BINARY, CLOSE, PING) for cut in cuts(whole)],
    "every opcode": EACH,
    "every reserved bit": [frame(opcode, b"{}", reserved=bits) for opcode in (1, 8, 9) for bits in range(1, 8)],
    "frames that are none": [
        b"\x81\x02{}",  # not masked
        b"\x81\xfe\x00\x02" + MASK + b"{}",  # longer than it need be
        b"\x81\xff" + struct.pack(">Q", 2**62) + MASK,
        b"\x81\xff" + struct.pack(">Q", 2**64 - 1) + MASK,
        b"\x89\xfe\x00\x7e" + MASK + bytes(126),
        frame(1, b"\xff\xfe"),
        frame(1, b"\xff\xfe") + CLOSE,
        frame(1, fin=False) + TEXT,
        frame(1, fin=False) + CLOSE,
        frame(1, fin=False) + PING + CLOSE + CLOSE,
        frame(1, b"\xe2\x82", fin=False) + frame(0, b"\xff"),
        frame(0, b"{}") + CLOSE,
        HANDSHAKE.format(username="ada").encode(),
    ],
    "close frames that are none": [
        frame(8, sent) + after
        for sent in (
            b"x",
            *(struct.pack(">H", code) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)),
            END + b"\xff",
        )
        for after in (b"", CLOSE)
    ],
    "frames after a close frame": [CLOSE + sent for sent in (b"\x88\0", b"\xff\xff", b"GET /", CLOSE * 2, *EACH)],
    "frames after a flood": [PING * 201 + sent for sent in (CLOSE, CLOSE * 2, PING * 999, TEXT * 999, b"\xff\xff")],
}
