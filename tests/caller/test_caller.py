"""Whole calls of the caller to a small aiortc peer on loopback, and its command."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import aioice.ice
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from click.testing import CliRunner

from caller import signaling
from caller.call import Call, Line
from caller.cli import call as command
from caller.dial import Plan, dial
from caller.result import CallError, Result
from caller.signaling import Token, calls_url
from caller.voice import Voice
from rtc.pacer import Pacer

WORDS = (
    {"type": ["of no name"]},
    {"type": "conversation.item.input_audio_transcription.completed", "transcript": " Who is there? "},
    {"type": "response.output_audio_transcript.done", "transcript": "Nobody. " * 1000},
)


@dataclass
class Peer:
    """A small server that answers with aiortc; ``mode`` is echo (payloads straight back) or silent."""

    mode: str = "echo"
    token: str = "right"
    url: str = ""
    full: bool = False
    dead: bool = False
    created: bool = True
    hung_up: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    connections: dict[str, RTCPeerConnection] = field(default_factory=dict)

    async def place(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        if self.full:
            return web.json_response({"error": {"message": "no room"}}, status=503, headers={"Retry-After": "7"})
        assert request.content_type == "application/sdp"
        self.models.append(request.query["model"])
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        name = f"rtc_{len(self.connections) + 1}"
        self.connections[name] = connection
        await connection.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        connection.getTransceivers()[0].direction = "sendrecv"
        if self.mode == "echo":
            self._echo(connection)

        @connection.on("datachannel")
        def opened(channel: Any) -> None:
            if self.created and channel.label == "oai-events":
                for event in (*WORDS, {"type": "session.created", "event_id": "1"}):
                    channel.send(json.dumps(event))

        await connection.setLocalDescription(await connection.createAnswer())
        answer = connection.localDescription.sdp
        if self.dead:
            await connection.close()
        headers = {"Location": f"/v1/realtime/calls/{name}"}
        return web.Response(status=201, text=answer, content_type="application/sdp", headers=headers)

    def _echo(self, connection: RTCPeerConnection) -> None:
        transport = connection.getTransceivers()[0].receiver.transport

        async def back(data: bytes, arrival_time_ms: int) -> None:
            await transport._send_rtp(data[:8] + b"echo" + data[12:])

        transport._handle_rtp_data = back  # type: ignore[method-assign]

    async def hang_up(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.hung_up.append(name)
        await self.connections[name].close()
        return web.Response()


@asynccontextmanager
async def _peer(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[Peer]:
    # aioice leaves loopback out; here nothing may leave the machine.
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    peer = Peer(**settings)
    app = web.Application()
    app.router.add_post("/v1/realtime/calls", peer.place)
    app.router.add_post("/v1/realtime/calls/{name}/hangup", peer.hang_up)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    peer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield peer
    finally:
        for connection in peer.connections.values():
            await connection.close()
        await runner.cleanup()


def _plan(peer: Peer, voice: Voice, **changes: Any) -> Plan:
    plan = Plan(calls_url(peer.url, "echo"), voice, Token("right", "the test"), talk_s=1.0, timeout_s=30.0)
    return replace(plan, **changes)


async def test_calls_are_set_up_talk_and_hang_up(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch) as peer:
        results, _ = await dial(_plan(peer, voice, calls=3, rate=100.0))
        assert [r.outcome for r in results] == ["ok"] * 3, [r.error for r in results]
        assert peer.models == ["echo"] * 3
        assert sorted(peer.hung_up) == ["rtc_1", "rtc_2", "rtc_3"] == sorted(r.call_id or "" for r in results)
    for result in results:
        assert [p.name for p in result.phases] == ["signaling", "ice", "dtls", "first_audio"]
        ends = [p.end_ms for p in result.phases]
        assert ends == sorted(ends)
        assert result.channel_open_ms is not None
        assert result.session_created_ms is not None
        assert result.words == (("caller", "Who is there?"), ("agent", ("Nobody. " * 250).strip()))
        assert result.frames_returned > 20
        assert len(result.round_trip_ms) == result.frames_returned
        assert result.packets_received >= result.frames_returned
        assert result.packets_rejected == 0


async def test_a_bound_caller_uses_that_address(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch) as peer:
        results, _ = await dial(_plan(peer, voice, bind="127.0.0.1"))
        assert results[0].outcome == "ok", results[0].error


async def test_wrong_token_is_named_by_its_source(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch) as peer:
        results, _ = await dial(_plan(peer, voice, token=Token("wrong", "keys.txt")))
        assert results[0].error == "HTTP 401, the token from keys.txt was refused: no such key"
        results, _ = await dial(_plan(peer, voice, token=None))
        assert "no token was sent: give --token-file or FIRSTHOP_TOKEN" in (results[0].error or "")


async def test_full_server_says_when_to_try_again(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch, full=True) as peer:
        results, _ = await dial(_plan(peer, voice))
    assert results[0].failed_phase == "signaling"
    assert results[0].error == "HTTP 503, the server is full, try again in 7 s: no room"


async def test_keys_that_the_server_does_not_take_are_no_call(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch) as peer:
        results, _ = await dial(_plan(peer, voice, keys="12"))
        assert peer.hung_up == ["rtc_1"]
    assert results[0].failed_phase == "signaling"
    assert "takes no keys" in (results[0].error or "")


async def test_dead_udp_port_fails_in_ice_and_still_hangs_up(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch, dead=True) as peer:
        results, _ = await dial(_plan(peer, voice, timeout_s=1.0))
        assert peer.hung_up == ["rtc_1"]
    assert results[0].failed_phase == "ice"
    assert "nothing listens on that UDP port" in (results[0].error or "")


async def test_silent_server_fails_at_the_first_audio(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch, mode="silent") as peer:
        results, _ = await dial(_plan(peer, voice, timeout_s=4.0))
    assert results[0].failed_phase == "first_audio"
    assert "no packet came" in (results[0].error or "")


async def test_call_that_the_server_ends_is_a_failed_one(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch) as peer, aiohttp.ClientSession() as http:
        line = Line(http, calls_url(peer.url, "echo"), Token("right", "x"), voice, Pacer(), timeout_s=30.0)
        call = Call(line)
        running = asyncio.create_task(call.run(60.0))
        while call.state != "talk":
            assert not running.done()
            await asyncio.sleep(0.01)
        await peer.connections["rtc_1"].close()
        result = await asyncio.wait_for(running, 60)
    assert (result.outcome, result.failed_phase) == ("failed", "talk")
    assert "the server ended the call" in (result.error or "")


async def test_stopping_hangs_up_a_call_that_talks_and_gives_up_one_that_rings(
    monkeypatch: pytest.MonkeyPatch, voice: Voice
) -> None:
    async with _peer(monkeypatch) as peer, aiohttp.ClientSession() as http:
        line = Line(http, calls_url(peer.url, "echo"), Token("right", "x"), voice, Pacer(), timeout_s=30.0)
        talking, ringing = Call(line, 1), Call(line, 2)
        first = asyncio.create_task(talking.run(600.0))
        while talking.state != "talk":
            assert not first.done()
            await asyncio.sleep(0.01)
        peer.dead = True
        second = asyncio.create_task(ringing.run(600.0))
        while ringing.state != "ice":
            assert not second.done()
            await asyncio.sleep(0.01)
        for call in (talking, ringing):
            call.stop()
        results = [await asyncio.wait_for(first, 60), await asyncio.wait_for(second, 60)]
        assert [r.outcome for r in results] == ["ok", "interrupted"]
        assert sorted(peer.hung_up) == ["rtc_1", "rtc_2"]


@pytest.mark.parametrize(("refusals", "asked"), [(2, 3), (100, 4)], ids=["for a while", "for ever"])
async def test_a_hang_up_that_the_server_cannot_pass_on_now_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, refusals: int, asked: int
) -> None:
    monkeypatch.setattr(signaling, "_AGAIN_S", 0.01)
    tokens: list[str] = []

    async def hang_up(request: web.Request) -> web.Response:
        tokens.append(request.headers["Authorization"])
        return web.Response(status=503 if len(tokens) <= refusals else 200)

    app = web.Application()
    app.router.add_post("/v1/realtime/calls/rtc_1/hangup", hang_up)
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        ended = signaling.hang_up(http, str(server.make_url("/v1/realtime/calls/rtc_1")), Token("right", "x"))
        if refusals < asked:
            await ended
        else:
            with pytest.raises(CallError, match="hang-up refused with HTTP 503"):
                await ended
    assert tokens == ["Bearer right"] * asked


async def test_ctrl_c_hangs_up_and_still_gives_results(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def watch(results: Sequence[Result], states: Sequence[str]) -> None:
        assert len(results) == 2
        if states == ["talk", "waiting"]:
            signal.raise_signal(signal.SIGINT)

    async with _peer(monkeypatch) as peer:
        plan = _plan(peer, voice, calls=2, rate=0.001, talk_s=600.0)
        results, _ = await asyncio.wait_for(dial(plan, watch), 60)
        assert peer.hung_up == ["rtc_1"]
    assert [r.outcome for r in results] == ["ok", "interrupted"]
    assert signal.getsignal(signal.SIGTERM) == before


async def _run_cli(*arguments: str, token: str = "right") -> Any:
    runner = CliRunner(env={"FIRSTHOP_TOKEN": token})
    return await asyncio.to_thread(runner.invoke, command, arguments)


async def test_command_prints_figures_and_exits_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _peer(monkeypatch) as peer:
        shown = await _run_cli(peer.url, "--duration", "0.5", "--json", "--timeout", "30")
        assert shown.exit_code == 0, shown.output
        assert json.loads(shown.stdout)["calls"]["ok"] == 1
        shown = await _run_cli(peer.url, "--duration", "0.5", "--timeout", "30")
        assert shown.exit_code == 0, shown.output
        assert "1 of 1 calls good" in shown.stdout


async def test_command_exits_with_1_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _peer(monkeypatch) as peer:
        shown = await _run_cli(peer.url, token="wrong")
        assert shown.exit_code == 1
        assert "token from FIRSTHOP_TOKEN was refused" in shown.stdout
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
        shown = await _run_cli(f"http://127.0.0.1:{free}", "--json")
    assert shown.exit_code == 1
    [failed] = json.loads(shown.stdout)["per_call"]
    assert failed["failed_phase"] == "signaling"
    assert failed["error"].startswith(f"nothing answers at http://127.0.0.1:{free}: ")


async def test_address_that_is_not_ours_is_named(voice: Voice) -> None:
    for bind in ("192.0.2.1", "::1"):
        results, _ = await dial(Plan("http://127.0.0.1:9/", voice, bind=bind))
        assert "no way from --bind to 127.0.0.1:9" in (results[0].error or "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["not a url"],
        ["http://127.0.0.1:1", "-n", "0"],
        ["http://127.0.0.1:1", "--bind", "localhost"],
        ["http://127.0.0.1:1", "--dtmf", "12x"],
        ["http://127.0.0.1:1", "--voice", __file__],
        ["http://127.0.0.1:1", "--token-file", "missing"],
    ],
)
def test_wrong_command_line_exits_with_2(arguments: list[str]) -> None:
    shown = CliRunner().invoke(command, arguments)
    assert shown.exit_code == 2, shown.output
    assert "Traceback" not in shown.output
