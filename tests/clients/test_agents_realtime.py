"""OpenAI's agents package for browsers, in Debian's Chromium on the lab's client host: WebRTC through XDP, from a page
of another origin, with an ephemeral key. The page is ``tests/clients/talk.js``."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from playwright.async_api import Page
from privileges import cannot_run
from saying import LONG, write_wav
from waiting import eventually

from lab.appliance import Appliance
from lab.network import Lab

CLIENTS = Path(__file__).parent
BUNDLE = CLIENTS / "node_modules/@openai/agents-realtime/dist/bundle"
PORT = 8089
AUDIBLE = 0.1  # a few words, as getStats adds energy up


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page with the package as it is installed, served on the client host itself, because microphones need a secure
    origin."""
    if not BUNDLE.exists():
        cannot_run("needs @openai/agents-realtime: run scripts/setup dev")
    folder = tmp_path_factory.mktemp("site")
    for path in (CLIENTS / "talk.html", CLIENTS / "talk.js"):
        (folder / path.name).symlink_to(path)
    (folder / "bundle").symlink_to(BUNDLE)
    write_wav(folder / "question.wav", "The birch canoe slid on the smooth planks.")
    write_wav(folder / "enough.wav", "Please be quiet now.")
    argv = [sys.executable, "-u", "-m", "http.server", str(PORT), "--bind", "127.0.0.1", "--directory", str(folder)]
    server = lab.client.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert server.stdout is not None
    with server.stdout as said:
        assert said.readline()  # it listens
        yield f"http://127.0.0.1:{PORT}/talk.html"
        server.terminate()
        server.wait()


def ephemeral_key(lab: Lab, appliance: Appliance) -> str:
    """An ephemeral key, made as an application's own server makes one for its page."""

    def ask() -> str:
        body = json.dumps({"session": {"type": "realtime", "model": "offline"}}).encode()
        headers = {"Authorization": f"Bearer {appliance.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{appliance.url}/v1/realtime/client_secrets", body, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return str(json.load(response)["value"])

    return lab.client.inside(ask)


class Talk:
    """The page, in a call."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def do(self, expression: str, argument: Any = None) -> Any:
        """The value of ``expression`` in the page, whose ``it`` is ``argument``."""
        return await self.page.evaluate(f"(it) => {expression}", argument)

    async def until(self, expression: str) -> None:
        await self.page.wait_for_function(f"() => {expression}", timeout=60_000)

    async def of_type(self, type_: str) -> list[Any]:
        """The server's events of that type."""
        return list(await self.do("talk.events.filter(e => e.type === it)", type_))

    async def transcript(self, whose: str) -> str:
        """The words of the newest item that has that role or that id, as the session's history has it."""
        item = await self.do("talk.history.findLast(item => item.role === it || item.itemId === it)", whose)
        return "".join(part.get("transcript") or part.get("text") or "" for part in item["content"])

    async def until_said(self, words: str) -> None:
        """Waits until the agent says so, as the session's history has it."""
        parts = "talk.history.filter(i => i.role === 'assistant').flatMap(i => i.content)"
        await self.until(f"{parts}.some(p => (p.transcript ?? p.text ?? '').includes({json.dumps(words)}))")


@pytest.fixture
async def talk(lab: Lab, appliance: Appliance, site: str, tmp_path: Path) -> AsyncIterator[Talk]:
    """A call to the agent ``offline``. What the client complains of, or could not read, fails the test."""
    complaints: list[str] = []
    async with chromium(lab, tmp_path) as browser:
        page = await browser.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("warning", "error") else None)
        await page.goto(site)
        await page.wait_for_function("() => window.talk", timeout=60_000)
        talk = Talk(page)
        url = f"{appliance.url}/v1/realtime/calls"
        await talk.do("talk.connect(it.url, it.key)", {"url": url, "key": ephemeral_key(lab, appliance)})
        yield talk
        assert await talk.do("talk.errors") == []
        # The SDK's schema of items has no pictures: it passes such events on as they are.
        unread = await talk.do("[...talk.unread.values()]")
        assert [event for event in unread if '"input_image"' not in json.dumps(event)] == []
        assert complaints == []


async def test_a_page_of_another_origin_calls_changes_the_session_and_hangs_up(
    talk: Talk, appliance: Appliance
) -> None:
    assert (await talk.do("talk.transport.callId")).startswith("rtc_")
    sizes = await talk.do("[talk.peer().remoteDescription.sdp, talk.peer().sctp.maxMessageSize]")
    assert f"a=max-message-size:{4 << 20}" in sizes[0]
    assert sizes[1] >= 256 << 10
    print("the browser sends messages of", sizes[1], "bytes")
    first = (await talk.of_type("session.updated"))[0]["session"]
    assert first["instructions"] == "Speak English."
    assert [tool["name"] for tool in first["tools"]] == ["get_weather"]
    turns = {"type": "server_vad", "silenceDurationMs": 300}
    await talk.do("talk.transport.updateSessionConfig({audio: {input: {turnDetection: it}}})", turns)
    changed = "talk.events.findLast(e => e.type === 'session.updated')?.session.audio.input.turn_detection"
    await talk.until(f"{changed}.silence_duration_ms === 300")
    await talk.do("talk.session.close()")
    ended = ("firsthop_transceiver_sessions_ended_total", "closed_by_peer")
    await eventually(lambda: appliance.metrics("transceiver").get(ended, 0) >= 1)


async def test_speech_is_heard_and_answered_in_speech(talk: Talk) -> None:
    await talk.do("talk.say('question')")
    await talk.until("talk.has('output_audio_buffer.stopped')")
    assert await talk.do("talk.energy") > AUDIBLE
    heard = (await talk.of_type("conversation.item.input_audio_transcription.completed"))[0]
    assert heard["transcript"]
    assert await talk.transcript(heard["item_id"]) == heard["transcript"]
    assert await talk.transcript("assistant")


async def test_a_function_is_called_and_its_output_spoken(talk: Talk) -> None:
    await talk.do("talk.session.sendMessage('What is the weather in Paris?')")
    await talk.until("talk.has('output_audio_buffer.started')")
    await talk.until_said("sunny in Paris")
    assert await talk.do("talk.toolEnds") == [["get_weather", "sunny in Paris"]]


async def test_a_picture_arrives_whole(talk: Talk) -> None:
    length = await talk.do("talk.show()")
    assert length > 200_000
    await talk.until("talk.has('output_audio_buffer.started')")
    await talk.until_said(f"{round(length * 3 / 4 / 1000)} kilobytes")
    shown = [event["item"] for event in await talk.of_type("conversation.item.done") if event["item"]["role"] == "user"]
    assert [part["type"] for item in shown for part in item["content"]] == ["input_image"]


async def test_a_caller_who_speaks_up_is_given_the_floor(talk: Talk) -> None:
    await talk.do("talk.session.sendMessage(it)", LONG)
    await talk.until(f"talk.energy > {AUDIBLE}")
    await talk.do("talk.say('enough')")
    # The SDK emits audio_interrupted over WebSockets alone: here the server tells what was heard.
    await talk.until("talk.has('conversation.item.retrieved')")
    types = await talk.do("talk.types()")
    order = ["input_audio_buffer.speech_started", "output_audio_buffer.cleared", "conversation.item.truncated"]
    assert sorted(order, key=types.index) == order
    truncated = (await talk.of_type("conversation.item.truncated"))[0]
    assert truncated["audio_end_ms"] > 0
    assert 0 < len(await talk.transcript(truncated["item_id"])) < len(LONG) / 2
    # And what was said meanwhile is answered.
    done = "talk.events.filter(e => e.type === 'response.done').slice(1)"
    await talk.until(f"{done}.some(e => e.response.status === 'completed')")


async def test_an_answer_is_interrupted_by_hand(talk: Talk) -> None:
    await talk.do("talk.session.sendMessage(it)", LONG)
    await talk.until("talk.has('output_audio_buffer.started')")
    await talk.do("talk.session.interrupt()")
    await talk.until("talk.has('conversation.item.retrieved')")
    (cleared,) = await talk.of_type("output_audio_buffer.cleared")
    (done,) = await talk.of_type("response.done")
    assert cleared["response_id"] == done["response"]["id"]
    assert (done["response"]["status"], done["response"]["status_details"]["reason"]) == (
        "cancelled",
        "client_cancelled",
    )
    (truncated,) = await talk.of_type("conversation.item.truncated")
    assert truncated["item_id"] == done["response"]["output"][0]["id"]
