"""Data channels: which one is for events, whatever the client calls it, and what happens to events that do not fit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiortc import RTCDataChannel
from session_run import Call, Raises, Recorder, Slow, a_call, ends_with, of_type, until

from rtc.ice.lite import CONSENT_S
from rtc.sctp.association import MOST_CHANNELS
from transceiver.agents import Line
from transceiver.realtime.fitting import fit

LONG = "e" * 1000


def unsaid(offer: str) -> str:
    return "\r\n".join(line for line in offer.split("\r\n") if not line.startswith("a=max-message-size"))


def of_size(size: int) -> Callable[[str], str]:
    def amend(offer: str) -> str:
        return unsaid(offer).replace("a=sctp-port:5000\r\n", f"a=sctp-port:5000\r\na=max-message-size:{size}\r\n")

    return amend


async def answers(call: Call, channel: RTCDataChannel) -> None:
    """Returns when an event on ``channel`` has been answered."""
    before = len(of_type(call, "session.updated"))
    channel.send(json.dumps({"type": "session.update", "session": {"instructions": "sing"}}))
    await until(lambda: len(of_type(call, "session.updated")) > before)


async def greeted(call: Call, times: int = 1) -> None:
    await until(lambda: len(of_type(call, "session.created")) >= times)
    assert len(of_type(call, "session.created")) == times


# --- which channel ---


@pytest.mark.parametrize("label", ["oai-events", "events", "", "ereignisse-\u00e4\u4e8b", LONG])
async def test_the_first_channel_is_for_events_whatever_it_is_called(label: str) -> None:
    async with a_call() as call:
        channel = await call.open_channel(label)
        await greeted(call)
        await answers(call, channel)


@pytest.mark.parametrize(
    "parameters",
    [
        {"ordered": False},
        {"maxRetransmits": 0},
        {"maxPacketLifeTime": 1},
        {"ordered": False, "maxRetransmits": 3},
        {"protocol": "realtime"},
        {"id": 17},
        {"id": 65534},
    ],
    ids=str,
)
async def test_a_channel_with_odd_parameters_is_for_events_as_well(parameters: dict[str, Any]) -> None:
    async with a_call() as call:
        channel = await call.open_channel(**parameters)
        await greeted(call)
        await answers(call, channel)


async def test_a_channel_that_is_closed_and_opened_again_begins_anew() -> None:
    async with a_call() as call:
        for times in range(1, 4):
            channel = await call.open_channel()
            await greeted(call, times)
            await answers(call, channel)
            channel.close()
            await until(lambda c=channel: c.readyState == "closed")


async def test_the_new_channel_may_be_opened_before_the_old_one_is_closed() -> None:
    async with a_call() as call:
        old = await call.open_channel()
        await greeted(call)
        new = await call.open_channel()
        new.send(json.dumps({"type": "session.update", "session": {"instructions": "early"}}))
        old.close()
        await greeted(call, 2)
        await until(lambda: of_type(call, "session.updated"))
        assert of_type(call, "session.updated")[0]["session"]["instructions"] == "early"
        await answers(call, new)


async def test_of_two_channels_the_first_stays_and_the_second_is_closed_and_not_left_mute() -> None:
    async with a_call() as call:
        first, second = await call.open_channel(), await call.open_channel("another")
        await until(lambda: second.readyState == "closed")
        assert first.readyState == "open"
        await answers(call, first)
        await greeted(call)


async def test_many_channels_one_after_the_other_are_no_abuse() -> None:
    async with a_call() as call:
        for times in range(1, MOST_CHANNELS + 3):
            channel = await call.open_channel()
            await greeted(call, times)
            channel.close()
            await until(lambda c=channel: c.readyState == "closed")


@pytest.mark.parametrize(
    "message", [b'{"type": "session.update", "session": {}}', '{"type": "session.update", "session": {}}']
)
async def test_an_event_may_come_as_bytes(message: str | bytes) -> None:
    async with a_call() as call:
        channel = await call.open_channel()
        channel.send(message)
        await until(lambda: of_type(call, "session.updated"))


@pytest.mark.parametrize("message", ["", b"", "\u00e4" * 50000, b"\xff" * 100_000])
async def test_what_is_no_event_gets_an_error_event(message: str | bytes) -> None:
    async with a_call() as call:
        channel = await call.open_channel()
        channel.send(message)
        await until(lambda: of_type(call, "error"))
        assert of_type(call, "error")[0]["error"]["code"] == "invalid_event"
        await answers(call, channel)


# --- dcid ---


@pytest.mark.parametrize("dcid", [0, 1, 2, 1023, 65534])
async def test_a_negotiated_channel_has_events_as_soon_as_sctp_is_up(dcid: int) -> None:
    async with a_call(dcid=dcid) as call:
        channel = await call.open_channel(negotiated=True, id=dcid)
        await greeted(call)
        await answers(call, channel)


async def test_with_a_negotiated_channel_others_are_closed() -> None:
    async with a_call(dcid=4) as call:
        channel = await call.open_channel(negotiated=True, id=4)
        other = await call.open_channel("files")
        await until(lambda: other.readyState == "closed")
        await answers(call, channel)
        await greeted(call)


async def test_a_channel_that_is_opened_on_the_negotiated_stream_is_that_channel() -> None:
    async with a_call(dcid=6) as call:
        channel = await call.open_channel(id=6)
        assert channel.readyState == "open"
        await answers(call, channel)


async def test_a_negotiated_channel_that_was_closed_begins_anew_when_the_client_speaks() -> None:
    async with a_call(dcid=8) as call:
        channel = await call.open_channel(negotiated=True, id=8)
        await greeted(call)
        channel.close()
        await until(lambda: channel.readyState == "closed")
        again = await call.open_channel(negotiated=True, id=8)
        await answers(call, again)
        await greeted(call, 2)


# --- events that do not fit ---


def test_what_fits_is_sent_as_it_is() -> None:
    event = {"type": "x", "event_id": "e"}
    assert fit(event, json.dumps(event), len(json.dumps(event)), None) == [json.dumps(event)]


@pytest.mark.parametrize("text", ["x" * 5000, '\u00e4\U0001f600"\\\n' * 700, ""], ids=["ascii", "escaped", "empty"])
@pytest.mark.parametrize(
    "kind",
    ["response.output_text.delta", "response.output_audio_transcript.delta", "response.function_call_arguments.delta"],
)
def test_a_delta_that_is_too_large_becomes_several(kind: str, text: str) -> None:
    event = {"type": kind, "event_id": "e", "response_id": "r", "delta": text}
    pieces = fit(event, json.dumps(event), 400, None)
    assert all(len(piece) <= 400 for piece in pieces)
    read = [json.loads(piece) for piece in pieces]
    assert "".join(piece["delta"] for piece in read) == text
    assert {(piece["type"], piece["response_id"]) for piece in read} == {(kind, "r")}
    assert len({piece["event_id"] for piece in read}) == len(read)


def test_audio_is_divided_between_samples() -> None:
    event = {"type": "response.output_audio.delta", "event_id": "e", "delta": "AAEC" * 3000}
    pieces = [json.loads(piece)["delta"] for piece in fit(event, json.dumps(event), 500, None)]
    assert "".join(pieces) == event["delta"]
    assert all(len(piece) % 8 == 0 for piece in pieces)


@pytest.mark.parametrize("asked", ["mine", "m" * 512, None])
def test_what_cannot_be_divided_becomes_an_error_that_names_it(asked: str | None) -> None:
    event = {"type": "session.updated", "event_id": "e", "session": {"instructions": "x" * 70000}}
    (said,) = fit(event, json.dumps(event), 65536, asked)
    error = json.loads(said)["error"]
    assert (error["code"], error["event_id"]) == ("event_too_large", asked)
    assert "session.updated" in error["message"]
    assert str(len(json.dumps(event))) in error["message"]
    assert "65536" in error["message"]


def test_where_not_even_an_error_fits_nothing_is_said() -> None:
    event = {"type": "response.output_text.delta", "event_id": "e", "delta": "x" * 1000}
    assert fit(event, json.dumps(event), 50, "mine") == []


@pytest.mark.parametrize("amend", [unsaid, of_size(65536)], ids=["unsaid", "said"])
async def test_an_event_larger_than_the_client_takes_is_told_with_the_event_that_asked(
    amend: Callable[[str], str],
) -> None:
    async with a_call(amend=amend) as call:
        channel = await call.open_channel()
        content = [{"type": "input_text", "text": "x" * 70_000}]
        item = {"type": "message", "role": "user", "content": content}
        channel.send(json.dumps({"type": "conversation.item.create", "event_id": "mine", "item": item}))
        await until(lambda: of_type(call, "error"))
        error = of_type(call, "error")[0]["error"]
        assert (error["code"], error["event_id"]) == ("event_too_large", "mine")
        assert of_type(call, "conversation.item.added") == []


async def test_a_client_that_takes_any_size_gets_large_events() -> None:
    async with a_call(amend=of_size(0)) as call:
        await call.open_channel()
        await greeted(call)
        Recorder.last.line.emit({"type": "its.own", "text": "x" * 200_000})
        await until(lambda: of_type(call, "its.own"))


async def test_a_client_that_takes_no_event_at_all_is_told_by_a_closed_channel() -> None:
    async with a_call(amend=of_size(40)) as call:
        channel = await call.open_channel()
        await until(lambda: channel.readyState == "closed")
        assert call.events == []
        assert not call.session.ended


async def test_events_that_nobody_reads_are_dropped_and_the_reader_is_told_when_it_reads_again() -> None:
    async with a_call() as call:
        await call.open_channel()
        await greeted(call)
        receiver, call.secure._dtls._data_receiver = call.secure._dtls._data_receiver, None
        for i in range(300):
            Recorder.last.line.emit({"type": "its.own", "n": i, "text": "x" * 10_000})
        call.secure._dtls._data_receiver = receiver
        await until(lambda: of_type(call, "error"))
        (told,) = of_type(call, "error")
        assert told["error"]["code"] == "events_dropped"
        dropped = int(told["error"]["message"].split()[0])
        numbers = [event["n"] for event in of_type(call, "its.own")]
        assert numbers == list(range(300 - dropped))
        Recorder.last.line.emit({"type": "its.own", "n": 300})
        await until(lambda: of_type(call, "its.own")[-1]["n"] == 300)


# --- last words ---


async def told(call: Call, code: str) -> None:
    await until(lambda: of_type(call, "error"))
    assert [event["error"]["code"] for event in of_type(call, "error")] == [code]
    assert of_type(call, "error")[0]["event_id"]


@pytest.mark.parametrize(
    ("reason", "code"),
    [("shutdown", "shutdown"), ("session_failed", "session_failed"), ("agent_failed", "agent_failed")],
)
async def test_who_is_cut_off_is_told_why(reason: str, code: str) -> None:
    async with a_call() as call:
        await call.open_channel()
        await greeted(call)
        call.session.end(reason)
        await told(call, code)


async def test_last_words_come_behind_all_that_waits() -> None:
    async with a_call() as call:
        await call.open_channel()
        await greeted(call)
        for i in range(20):
            Recorder.last.line.emit({"type": "its.own", "n": i, "text": "x" * 5000})
        call.session.end("shutdown")
        await told(call, "shutdown")
        assert len(of_type(call, "its.own")) == 20


async def test_who_gave_no_consent_is_told_before_the_edge_forgets_its_path() -> None:
    async with a_call() as call:
        await call.open_channel()
        await greeted(call)
        call.session.sweep(time.monotonic() + CONSENT_S + 1)
        await ends_with(call, "consent_expired")
        await told(call, "consent_expired")
        assert call.log[-1][0] == "down"


@pytest.mark.parametrize("agent", [Raises, Slow])
async def test_an_agent_that_fails_is_told_once(agent: type[Recorder]) -> None:
    async with a_call(agent) as call:
        channel = await call.open_channel()
        await greeted(call)
        if agent is Slow:
            channel.send('{"type": "its.own"}')
        else:
            call.speak(b"\xf8\xff\xfe")
        await ends_with(call, "agent_failed")
        await told(call, "agent_failed")


async def test_who_hangs_up_is_told_nothing() -> None:
    async with a_call() as call:
        channel = await call.open_channel()
        await greeted(call)
        call.session.end("hangup")
        await until(lambda: channel.readyState == "closed")
        assert of_type(call, "error") == []


class Emits(Recorder):
    def __init__(self, line: Line) -> None:
        super().__init__(line)
        line.emit({"type": "born"})


async def test_an_agent_may_have_something_to_say_while_it_is_made() -> None:
    async with a_call(Emits) as call:
        await call.open_channel()
        await greeted(call)
