"""The wire: what is understood, what is refused without quoting it, and what the server's own frames look like."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from app.exceptions import EmptyMessage, InvalidFrame
from app.message import Message
from app.wire import client_frames, frames
from app.wire.client_frames import ClientPing, ClientPong, Post
from app.wire.frames import HistoryFrame, MessageFrame, PreparedFrames

SECRET = "SECRETWORD"
FAULTS: list[str | bytes] = [
    "",
    " ",
    SECRET,
    f'{{"type":"message","content":"{SECRET}"',
    f'{{"type":"ping"}} {SECRET}',
    f"{{'type':'{SECRET}'}}",
    "null",
    "true",
    "1",
    f'"{SECRET}"',
    f'["{SECRET}"]',
    f'[{{"type":"message","content":"{SECRET}"}}]',
    "{}",
    f'{{"content":"{SECRET}"}}',
    f'{{"type":"{SECRET}"}}',
    f'{{"type":["{SECRET}"]}}',
    f'{{"type":{{"{SECRET}":1}}}}',
    '{"type":null}',
    '{"type":1}',
    '{"type":"Message","content":"x"}',
    '{"type":"message"}',
    '{"type":"message","content":null}',
    '{"type":"message","content":5}',
    '{"type":"message","content":true}',
    '{"type":"message","content":NaN}',
    f'{{"type":"message","content":["{SECRET}"]}}',
    f'{{"type":"message","content":{{"{SECRET}":1}}}}',
    '{"type":"message","content":"x","nonce":5}',
    '{"type":"message","content":"x","nonce":""}',
    f'{{"type":"message","content":"x","nonce":"{SECRET}\\n"}}',
    f'{{"type":"message","content":"x","nonce":"{SECRET} "}}',
    '{"type":"message","content":"x","nonce":"ü"}',
    json.dumps({"type": "message", "content": "x", "nonce": "n" * 65}),
    f'{{"type":"message","content":"{SECRET}\\ud800"}}',
    f'{{"type":"message","content":"\\udc00\\ud83d{SECRET}"}}',
    f'{{"type":"message","content":"{SECRET}\ud800"}}',
    "\ud800",
    "[" * 100_000,
    '{"type":' * 100_000,
    '{"type":"message","content":' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"type":"message","content":"x","extra":' + "[" * 100_000 + "]" * 100_000 + "}",
    b"\xff\xfe",
    b'{"type":"message","content":"\xff"}',
    b'{"type":"message","content":"\xed\xa0\x80"}',
]
MESSAGES = [
    Message("1", "s", "ada", "Hello", "Hello", 1.5, None, "visitor", 1),
    Message("2", "s", "ada", 'a &lt; b\n"é🎉', 'a < b\n"é🎉', 1e9 + 0.1, "nonce-1", "owner", 2**53),
]
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
near_frames = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "ping", "pong", "history"]) | json_values},
    optional={"content": json_values, "nonce": json_values, "id": json_values},
)


@pytest.mark.parametrize("raw", FAULTS, ids=lambda raw: repr(raw[:50]))
def test_faulty_frame_is_refused_without_quoting_it(raw: str | bytes) -> None:
    with pytest.raises(InvalidFrame) as caught:
        client_frames.decode(raw)
    told = frames.error_frame(caught.value, client_frames.nonce_of(raw)).decode()
    assert SECRET not in told
    assert json.loads(told)["data"] == {"code": "invalid_frame"}


@pytest.mark.parametrize(
    ("raw", "frame"),
    [
        ('{"type":"ping"}', ClientPing(type="ping")),
        (b' {"type":"pong"}\n', ClientPong(type="pong")),
        ('{"type":"message","content":""}', Post(type="message", content="")),
        ('{"content":"\\ud83c\\udf89","type":"message"}', Post(type="message", content="🎉")),
        ('{"type":"message","content":"x","nonce":null}', Post(type="message", content="x")),
        (
            json.dumps({"type": "message", "content": "x", "nonce": "aZ09-_" + "n" * 58}),
            Post(type="message", content="x", nonce="aZ09-_" + "n" * 58),
        ),
    ],
)
def test_frame_is_understood(raw: str | bytes, frame: client_frames.ClientFrame) -> None:
    assert client_frames.decode(raw) == frame


def test_unknown_fields_and_what_no_client_can_set_are_ignored() -> None:
    claimed = {
        "id": "1",
        "seq": 7,
        "username": "root",
        "timestamp": 0,
        "role": "owner",
        "data": {"content": "y"},
        "": [],
    }
    assert client_frames.decode(json.dumps({"type": "message", "content": "x", **claimed})) == Post(
        type="message", content="x"
    )
    assert set(Post.model_fields) == {"type", "content", "nonce"}


@given(st.text(st.characters(categories=None)) | st.binary() | (json_values | near_frames).map(json.dumps))
def test_anything_decodes_to_a_frame_or_is_an_invalid_frame(raw: str | bytes) -> None:
    try:
        assert isinstance(client_frames.decode(raw), client_frames.ClientFrame)
    except InvalidFrame:
        assert client_frames.nonce_of(raw) is None or b"nonce" in (raw.encode() if isinstance(raw, str) else raw)


@given(near_frames)
def test_decoded_text_can_be_sent_on(value: dict[str, Any]) -> None:
    raw = json.dumps(value)
    try:
        frame = client_frames.decode(raw)
    except InvalidFrame:
        return
    assert json.loads(frames.encode(frame))["type"] == value["type"]


@pytest.mark.parametrize(
    ("raw", "nonce"),
    [
        ('{"type":"message","content":5,"nonce":"n-1"}', "n-1"),
        ('{"type":"unknown","nonce":"n-1"}', "n-1"),
        (b'{"nonce":"n-1"}', "n-1"),
        ('{"type":"message","nonce":"not one"}', None),
        ('{"type":"message","nonce":5}', None),
        ('{"type":"message"}', None),
        ('["n-1"]', None),
        ("no JSON", None),
        (b"\xff", None),
    ],
)
def test_nonce_of_a_refused_frame_is_found_where_there_is_one(raw: str | bytes, nonce: str | None) -> None:
    assert client_frames.nonce_of(raw) == nonce


def test_error_frame_says_what_and_why() -> None:
    told = json.loads(frames.error_frame(EmptyMessage(), "n-1"))
    assert told == {"type": "error", "message": str(EmptyMessage()), "data": {"code": "empty_message", "nonce": "n-1"}}


def test_message_data_holds_only_what_it_needs() -> None:
    plain, full = (json.loads(frames.encode_data(message, "author")) for message in MESSAGES)
    assert plain == {
        "id": "1",
        "seq": 1,
        "username": "ada",
        "author": "author",
        "content": "Hello",
        "timestamp": 1.5,
    }
    assert full == {
        "id": "2",
        "seq": 2**53,
        "username": "ada",
        "author": "author",
        "content": 'a &lt; b\n"é🎉',
        "timestamp": 1e9 + 0.1,
        "text": 'a < b\n"é🎉',
        "nonce": "nonce-1",
        "role": "owner",
    }


@pytest.mark.parametrize("message", MESSAGES)
def test_message_frame_equals_its_model(message: Message) -> None:
    raw = frames.message_frame(frames.encode_data(message, "author"))
    assert frames.encode(MessageFrame.model_validate_json(raw)) == raw


@pytest.mark.parametrize("messages", [[], MESSAGES[:1], MESSAGES])
@pytest.mark.parametrize("hidden", [None, [], ["a", "b"]])
def test_history_frame_equals_its_model(messages: list[Message], hidden: list[str] | None) -> None:
    raw = frames.history_frame([frames.encode_data(message, "author") for message in messages], hidden)
    frame = HistoryFrame.model_validate_json(raw)
    assert frames.encode(frame) == raw
    assert (len(frame.data), frame.recovered, frame.hidden) == (len(messages), hidden is not None, hidden)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_wire_is_what_websockets_parses(size: int) -> None:
    payloads = [b"a" * size, b"{}"]
    reader = StreamReader()
    reader.feed_data(PreparedFrames(payloads).wire)
    reader.feed_eof()
    for payload in payloads:
        assert parsed(reader) == Frame(Opcode.TEXT, payload)
    assert next(reader.at_eof(), None) is None
    with pytest.raises(StopIteration) as ended:
        next(reader.at_eof())
    assert ended.value.value is True


def parsed(reader: StreamReader) -> Frame:
    with pytest.raises(StopIteration) as ended:
        next(Frame.parse(reader.read_exact, mask=False))
    frame = ended.value.value
    assert isinstance(frame, Frame)
    return Frame(frame.opcode, bytes(frame.data), frame.fin, frame.rsv1, frame.rsv2, frame.rsv3)


def test_batch_has_the_same_frames_as_text_and_as_bytes() -> None:
    prepared = PreparedFrames([b"{}", '{"é":"🎉"}'.encode()])
    assert prepared.texts == ["{}", '{"é":"🎉"}']
    assert prepared.size == 2 + len('{"é":"🎉"}'.encode())
