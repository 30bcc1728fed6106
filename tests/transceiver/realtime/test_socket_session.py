"""Sessions without media, and those who watch: a real transceiver on a real link, its signaling played by the test."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from realtime_run import QUIET, loud
from signaling_run import ONE, OTHER, Signaling
from waiting import eventually
from wiring import raw

from caller.offer import Offer
from edge.signaling.cutting import parts
from rtc.dtls.secure import Certificate
from transceiver.records.files import Records
from wire import ufrag


@pytest.fixture
async def signaling(tmp_path: Path) -> AsyncIterator[Signaling]:
    ends = Signaling(tmp_path)
    yield ends
    await ends.close()


async def test_a_session_without_media_hears_and_answers_in_events(signaling: Signaling) -> None:
    sealed = await signaling.opened({"instructions": "sing"})
    created = (await signaling.event("session.created"))["session"]
    assert (created["instructions"], created["id"]) == ("sing", ufrag.call_id(sealed))
    pcm = b"".join([*[loud(i) for i in range(40)], *[QUIET] * 40])
    await signaling.says(sealed, "input_audio_buffer.append", audio=base64.b64encode(pcm).decode())
    await signaling.event("input_audio_buffer.committed")
    assert (await signaling.event("response.output_audio.delta"))["delta"]
    assert (await signaling.event("response.done"))["response"]["status"] == "completed"
    await signaling.send("session.end", request=2, ufrag=sealed)
    assert await signaling.hears("session.closed") == {"ufrag": sealed, "reason": "hangup"}
    assert signaling.transceiver.sessions == 0


async def test_what_is_locked_stays_as_the_key_says_and_unseen(signaling: Signaling) -> None:
    asked = {"instructions": "the price is 5"}
    await signaling.send("session.open", request=1, agent="parrot", session=asked, locked=["instructions"])
    sealed = str((await signaling.hears("session.opened"))["ufrag"])
    assert (await signaling.event("session.created"))["session"]["instructions"] == ""
    await signaling.says(sealed, "session.update", event_id="mine", session={"instructions": "the price is 1"})
    error = (await signaling.event("error"))["error"]
    assert (error["code"], error["event_id"]) == ("locked", "mine")
    await signaling.send("session.watch", OTHER, request=2, ufrag=sealed)
    assert (await signaling.hears("session.watching", OTHER))["session"]["instructions"] == ""
    await signaling.send("session.open", request=3, agent="parrot", locked=["nothing"])
    assert (await signaling.hears("session.refused"))["code"] == "invalid_value"


@pytest.mark.parametrize(
    "session",
    [
        {"type": "transcription"},
        {"tools": [{"type": "mcp", "server_label": "x"}]},
        {"instructions": "x" * (17 << 10)},
        {"tools": [{"name": "f", "parameters": json.loads('{"a":' * 400 + "1" + "}" * 400)}]},
    ],
)
async def test_a_session_that_is_too_much_or_not_served_is_refused(signaling: Signaling, session: object) -> None:
    await signaling.send("session.open", request=1, agent="parrot", session=session)
    refused = await signaling.hears("session.refused")
    assert refused["code"] in ("invalid_value", "string_above_max_length", "invalid_event")
    assert signaling.transceiver.sessions == 0


def bombs() -> list[str]:
    """Events that once held the loop for seconds, and their relatives."""
    picture = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * (3 << 20)}
    sound = {"type": "input_audio", "audio": "A" * (3 << 20)}
    text = {"type": "input_text", "text": "x" * (120 << 10)}
    keys = "{" + ",".join(f'"k{i}":0' for i in range(7000)) + "}"
    tools = [{"type": "function", "name": "f", "description": "x" * 60_000}]

    def item(part: object, **fields: str) -> str:
        item = {"type": "message", "role": "user", "content": [part], **fields}
        return json.dumps({"type": "conversation.item.create", "item": item})

    return [
        '{"type":"session.update","session":{"x":[' + "[]," * (1 << 20) + "1]}}",
        '{"type":"session.update","session":{"x":' + "[" * (3 << 20) + "1]}}",
        '{"type":"session.update","session":{"instructions":"' + "x" * (3 << 20) + '"}}',
        '{"type":"session.update","session":{"tools":[{"name":"f","parameters":' + keys + "}]}}",
        '{"type":"response.create","response":{"metadata":' + keys + "}}",
        json.dumps({"type": "session.update", "session": {"tools": tools}}),
        *['{"type":"session.update","session":{}}'] * 20,
        *[item(picture)] * 8,
        item(sound),
        item(text, id="a"),
        *['{"type":"conversation.item.retrieve","item_id":"a"}'] * 100,
        *parts(json.dumps({"type": "input_audio_buffer.append", "audio": "A" * (3 << 20)})),
        *['{"type":"response.create"}'] * 5,
    ]


async def test_nothing_that_is_said_in_events_holds_the_loop_or_stays_in_memory(signaling: Signaling) -> None:
    sealed = await signaling.opened()
    messages = [raw("session.event", ufrag=sealed, event=event) for event in bombs()]
    held = [0.0]

    async def watch() -> None:
        """Measures the most CPU time that one turn of the loop takes."""
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            held[0] = max(held[0], time.thread_time() - began)

    before = psutil.Process().memory_info().rss
    watching = asyncio.create_task(watch())
    # It was seconds. What is meant is 2 ms; several sessions and what the test itself does may come together in a turn.
    # What is too long is measured again: it may have been disturbed.
    worst: list[float] = []
    while len(worst) < 3 and not any(each < 0.04 for each in worst):
        held[0] = 0.0
        await asyncio.to_thread(send_all, signaling.sockets[ONE], messages)
        session = signaling.transceiver.held.sockets[sealed.encode()]
        inbox = session.talk.conversation._inbox
        await eventually(lambda inbox=inbox: not inbox.busy)  # type: ignore[misc]
        worst.append(held[0])
    watching.cancel()
    assert min(worst) < 0.04
    assert psutil.Process().memory_info().rss - before < 200 << 20


def send_all(socket: zmq.Socket[bytes], messages: list[bytes]) -> None:
    for message in messages:
        socket.send(message)


async def test_fifteen_megabytes_of_audio_in_one_event_are_heard(signaling: Signaling) -> None:
    sealed = await signaling.opened({"audio": {"input": {"turn_detection": None}}})
    whole = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * (15 << 20)})
    for part in parts(whole):
        await signaling.send("session.event", ufrag=sealed, event=part)
    await signaling.says(sealed, "input_audio_buffer.commit")
    assert await signaling.event("input_audio_buffer.committed")
    await signaling.says(sealed, "input_audio_buffer.commit")
    assert (await signaling.event("error"))["error"]["code"] == "input_audio_buffer_commit_empty"


async def test_who_watches_gets_each_event_once_until_it_has_had_enough(signaling: Signaling) -> None:
    sealed = await signaling.opened()
    for request in (5, 6):
        await signaling.send("session.watch", OTHER, request=request, ufrag=sealed)
        watching = await signaling.hears("session.watching", OTHER)
        assert (watching["request"], watching["session"]["id"]) == (request, ufrag.call_id(sealed))
    await signaling.says(sealed, "session.update", OTHER, session={"instructions": "sing"})
    assert (await signaling.event("session.updated"))["session"]["instructions"] == "sing"
    await signaling.event("session.updated", OTHER)
    await signaling.says(sealed, "input_audio_buffer.clear", OTHER)
    await signaling.event("input_audio_buffer.cleared", OTHER)
    assert signaling.drain(OTHER) == []
    await signaling.send("session.unwatch", OTHER, ufrag=sealed)
    # It speaks for nobody now.
    await signaling.says(sealed, "input_audio_buffer.clear", OTHER)
    await signaling.says(sealed, "session.update", session={})
    await signaling.event("session.updated")
    assert not any(message.type == "session.event" for message in signaling.drain(OTHER))


@pytest.mark.parametrize("dcid", [0, 65534, None])
async def test_an_offer_may_name_the_stream_of_its_events(signaling: Signaling, dcid: int | None) -> None:
    text = Offer(Certificate.generateCertificate().fingerprint).sdp()
    where = ["192.0.2.1", 3478]
    await signaling.send("session.offer", request=1, offer=text, agent="parrot", media=where, dcid=dcid)
    assert (await signaling.hears("session.answer"))["request"] == 1


@pytest.mark.parametrize("dcid", [-1, 65535, True, "7", 1.0, [7]])
async def test_a_stream_that_is_none_is_refused(signaling: Signaling, dcid: object) -> None:
    text = Offer(Certificate.generateCertificate().fingerprint).sdp()
    where = ["192.0.2.1", 3478]
    await signaling.send("session.offer", request=1, offer=text, agent="parrot", media=where, dcid=dcid)
    refused = await signaling.hears("session.refused")
    assert (refused["request"], refused["code"]) == (1, "invalid_request")
    assert "dcid" in refused["message"]


async def test_a_call_is_watched_before_its_media_is_up(signaling: Signaling) -> None:
    text = Offer(Certificate.generateCertificate().fingerprint).sdp()
    asked = {"instructions": "sing"}
    await signaling.send(
        "session.offer", request=1, offer=text, agent="parrot", media=["192.0.2.1", 3478], session=asked
    )
    sealed = (await signaling.hears("session.answer"))["ufrag"]
    await signaling.send("session.watch", OTHER, request=2, ufrag=sealed)
    await signaling.hears("session.watching", OTHER)
    await signaling.send("session.end", request=3, ufrag=sealed)
    assert (await signaling.hears("session.closed", OTHER))["reason"] == "hangup"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"agent": "nobody"}, "model_not_found", "model"),
        ({"agent": "echo"}, "model_not_found", "model"),
        ({"agent": "parrot", "session": {"colour": "red"}}, "unknown_parameter", "session.colour"),
        ({"agent": "parrot", "session": [1]}, "invalid_type", "session"),
    ],
)
async def test_what_cannot_be_opened_is_refused(
    signaling: Signaling, fields: dict[str, Any], code: str, param: str
) -> None:
    await signaling.send("session.open", request=7, **fields)
    refused = await signaling.hears("session.refused")
    assert (refused["request"], refused["code"], refused["param"]) == (7, code, param)


async def test_sessions_of_both_kinds_are_counted_together(signaling: Signaling) -> None:
    for _ in range(3):
        await signaling.opened()
    await signaling.send("session.open", request=9, agent="parrot")
    assert (await signaling.hears("session.refused"))["code"] == "full"
    await signaling.send("health", request=10)
    assert (await signaling.hears("health"))["sessions"] == 3


async def test_nobody_watches_what_is_not_there(signaling: Signaling) -> None:
    await signaling.send("session.watch", request=4, ufrag="nowhere")
    assert (await signaling.hears("session.refused"))["code"] == "call_id_not_found"
    await signaling.send("session.event", ufrag="nowhere", event="{}")
    await signaling.send("session.unwatch", ufrag="nowhere")
    await signaling.send("health", request=5)
    await signaling.hears("health")


async def test_one_account_s_sessions_are_not_there_for_another(signaling: Signaling) -> None:
    await signaling.send("session.open", request=1, agent="parrot", owner="a")
    sealed = str((await signaling.hears("session.opened"))["ufrag"])
    for request, type_ in enumerate(("session.watch", "session.end"), 2):
        await signaling.send(type_, OTHER, request=request, ufrag=sealed, owner="b")
        refused = await signaling.hears("session.refused", OTHER)
        assert (refused["request"], refused["code"]) == (request, "call_id_not_found")
    await signaling.send("session.watch", OTHER, request=4, ufrag=sealed, owner="a")
    await signaling.hears("session.watching", OTHER)
    # What the edge says by itself, because a socket closed, needs no account.
    await signaling.send("session.end", request=5, ufrag=sealed)
    await signaling.hears("session.ended")


async def test_a_shutdown_tells_who_opened_a_session(signaling: Signaling) -> None:
    sealed = await signaling.opened()
    for session in signaling.transceiver.held.sockets.copy().values():
        session.end("shutdown")
    assert (await signaling.hears("session.closed")) == {"ufrag": sealed, "reason": "shutdown"}


async def test_a_session_that_its_client_forgot_ends_after_an_hour(signaling: Signaling) -> None:
    sealed = await signaling.opened()
    (session,) = signaling.transceiver.held.sockets.values()
    session.sweep(time.monotonic() + 3500)
    assert not session.ended
    session.sweep(time.monotonic() + 3601)
    assert (await signaling.hears("session.closed")) == {"ufrag": sealed, "reason": "expired"}


async def test_a_session_without_media_leaves_a_transcript_and_no_recording(
    signaling: Signaling, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    records = signaling.transceiver._talks.records = Records(kept, kept)
    sealed = await signaling.opened({"audio": {"input": {"turn_detection": None}}})
    await signaling.event("session.created")
    await signaling.says(sealed, "input_audio_buffer.append", audio=base64.b64encode(QUIET * 10).decode())
    await signaling.says(sealed, "input_audio_buffer.commit")
    await signaling.event("input_audio_buffer.committed")
    await signaling.says(sealed, "response.create")
    await signaling.event("response.done")
    await signaling.send("session.end", request=2, ufrag=sealed)
    await signaling.hears("session.ended")
    records.close()
    [path] = kept.iterdir()
    assert path.name == f"{ufrag.call_id(sealed)}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    said = [line["event"] for line in lines if line["from"] == "client"]
    assert [event["type"] for event in said] == [
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
        "response.create",
    ]
    assert said[0]["audio"] == {"bytes": len(QUIET) * 10}
    [delta] = [line["event"]["delta"] for line in lines if line["event"]["type"] == "response.output_audio.delta"]
    assert delta == {"bytes": len(QUIET) * 10}
    assert path.stat().st_size < 10_000
