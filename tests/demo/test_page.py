"""The demo's page in a real browser: Debian's Chromium on the lab's client host, with a voice for a microphone."""

from __future__ import annotations

import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from browser import chromium
from observing import STEERED, core_of, moved, xdp
from paths import TESTS
from playwright.async_api import Browser, Page

from caller.voice import generated
from lab.appliance import Appliance
from lab.network import Lab
from rtc.codecs.opus import Decoder

ARTIFACTS = TESTS / "artifacts"
PORT = 8088
# Calls of the page hold this long; `make trials` talks for a minute.
TALK_S = 12
LONG_TALK_S = 60

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WAV file of somebody who speaks, falls silent and speaks again; Chromium plays it in a loop."""
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    decoder = Decoder(48000)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        for frame in generated().frames:
            file.writeframes(decoder.decode(frame))
    return path


@pytest.fixture(scope="module")
def url(lab: Lab, appliance: Appliance) -> Iterator[str]:
    """The page, served on the client host itself: only there is it a secure origin, which microphones need."""
    argv = [sys.executable, "-m", "demo.page", "--edge", appliance.url, "--token-file", str(appliance.token_file)]
    server = lab.client.popen([*argv, "--agents", "parrot,offline,echo", "--port", str(PORT)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    with server.stdout as said:
        yield said.readline().decode().strip()
        server.terminate()
        server.wait()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser(lab: Lab, microphone: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """One for all pages: it takes seconds of a core to start."""
    switches = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
    ]
    async with chromium(lab, tmp_path_factory.mktemp("browser"), *switches) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, url: str) -> AsyncIterator[Page]:
    """A page with nothing of another's."""
    context = await browser.new_context(viewport={"width": 1200, "height": 900})
    page = await context.new_page()
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith((url, "data:")) else wrong.append(asked.url))
    try:
        await page.goto(url)
        await comes_true(page, "document.querySelector('#agent').options.length === 3")
        yield page
        assert not wrong
    finally:
        await context.close()


async def state(page: Page, expression: str) -> Any:
    return await page.evaluate(f"() => window.firsthop.{expression}")


async def comes_true(page: Page, expression: str) -> None:
    await page.wait_for_function(f"() => {expression}", timeout=60_000)


async def talk(page: Page, appliance: Appliance, seconds: int) -> None:
    """Holds a call for ``seconds`` of received audio, and asserts that it was a good one, all of it on the core that
    its ufrag names."""
    before = xdp(appliance)
    await page.get_by_role("button", name="Connect").click()
    await comes_true(page, "window.firsthop.state === 'connected'")
    await comes_true(page, "window.firsthop.events.some(e => e.event.type === 'session.created')")
    await comes_true(page, "window.firsthop.levels.microphone > 0.02")
    # The parrot is silent until it has heard somebody out: what sounds is the caller's own voice.
    await comes_true(page, "window.firsthop.levels.agent > 0.02")
    await comes_true(page, f"window.firsthop.stats.packets_received > {50 * seconds}")
    assert await state(page, "stats.packets_lost") == 0
    assert await state(page, "state") == "connected"
    call = await state(page, "events.find(e => e.event.type === 'session.created').event.session.id")
    steered = {key: n for key, n in moved(before, xdp(appliance)).items() if key[0] in STEERED}
    print(call, await state(page, "stats.packets_received"), "packets, 0 lost; XDP steered", steered)
    assert {core for _, core in steered} == {str(core_of(appliance, call))}


async def test_a_person_talks_to_the_parrot_and_hears_themselves(page: Page, appliance: Appliance) -> None:
    await talk(page, appliance, TALK_S)
    assert await state(page, "stats.rtt_ms.length") > 0
    ARTIFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTIFACTS / "page.png", full_page=True)
    await page.get_by_role("button", name="Hang up").click()
    await comes_true(page, "window.firsthop.state === 'ended'")
    ended = appliance.metrics("transceiver")
    reasons = {key[1]: n for key, n in ended.items() if key[0] == "firsthop_transceiver_sessions_ended_total" and n}
    assert set(reasons) <= {"hangup", "closed_by_peer"}


async def turn_to(page: Page, target: str) -> None:
    """Presses Tab until ``target`` (the id of an element) has the focus."""
    for _ in range(40):
        if await page.evaluate("document.activeElement.id || document.activeElement.value") == target:
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"no way to {target} with Tab")


async def call_by_keyboard(page: Page, agent: str) -> None:
    """Sets push to talk, so that the microphone's loop interrupts nobody, and connects."""
    await turn_to(page, "server_vad")
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("ArrowRight")
    await comes_true(page, "document.body.dataset.turns === 'manual'")
    await page.evaluate("document.activeElement.blur()")
    await turn_to(page, "agent")
    await page.keyboard.type(agent)
    await comes_true(page, f"document.querySelector('#agent').value === '{agent}'")
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Enter")
    # Space is for talking now.
    await comes_true(page, "document.activeElement.id === 'hold'")


async def write(page: Page, text: str) -> None:
    await page.evaluate("document.activeElement.blur()")
    await page.keyboard.press("/")
    await comes_true(page, "document.activeElement.id === 'text'")
    await page.keyboard.type(text)
    await page.keyboard.press("Enter")


def ascending(turn: dict[str, Any], phases: Sequence[str]) -> None:
    assert set(turn["phases"]) == set(phases)
    times = [turn["phases"][name] for name in phases]
    assert times == sorted(times)
    assert turn["total_ms"] == times[-1] - times[0] > 0


async def test_a_spoken_turn_shows_where_its_time_went(page: Page) -> None:
    await page.get_by_role("button", name="Connect").click()
    # The microphone's loop may have spoken over an answer before it was heard, and on a busy machine a sound may come
    # before the event that tells of it.
    whole = "turns.filter(t => t.total_ms !== null && t.phases.started <= t.phases.heard)"
    await comes_true(page, f"window.firsthop.{whole}.length")
    turn = (await state(page, whole))[0]
    assert (turn["kind"], turn["ended_by"]) == ("spoken", "server")
    ascending(turn, ("ended", "stopped", "committed", "created", "delta", "started", "heard"))
    assert round(turn["phases"]["stopped"] - turn["phases"]["ended"]) == 500
    assert (await state(page, "latency"))["turns"] >= 1
    said = [(item["role"], item["kind"]) for item in await state(page, "transcript")]
    assert said[:2] == [("user", "speech"), ("agent", "message")]
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await page.evaluate("document.documentElement.scrollWidth") == 390


async def test_a_typed_question_is_answered_aloud_with_what_the_page_knows(page: Page) -> None:
    await call_by_keyboard(page, "offline")
    await write(page, "What time is it?")
    await comes_true(page, "window.firsthop.turns[0]?.total_ms")
    await comes_true(page, "window.firsthop.transcript.at(-1)?.role === 'agent' && firsthop.transcript.at(-1).text")
    asked, tool, answer = await state(page, "transcript")
    assert asked["text"] == "What time is it?"
    assert (tool["role"], tool["name"]) == ("tool", "get_time")
    assert tool["output"] in answer["text"]
    ascending((await state(page, "turns"))[0], ("ended", "committed", "created", "tool", "delta", "started", "heard"))
    assert tool["output"] in await page.get_by_role("log", name="Conversation").inner_text()
    await turn_to(page, "all")
    await page.keyboard.press("ArrowRight")
    shown = "[...document.querySelectorAll('#log > li:not([hidden])')].map(line => line.dataset.from)"
    assert set(await page.evaluate(shown)) == {"client"}


async def test_an_interrupted_answer_ends_where_it_was_interrupted(page: Page) -> None:
    await call_by_keyboard(page, "offline")
    await write(page, "Tell me a story")
    await comes_true(page, "window.firsthop.turns[0]?.total_ms")
    # In a field that is written in, Escape is not the page's.
    await page.keyboard.press("Escape")
    assert await state(page, "events.filter(e => e.from === 'client' && e.event.type.endsWith('.clear')).length") == 0
    await turn_to(page, "interrupt")
    await page.keyboard.press("Escape")
    await comes_true(page, "window.firsthop.transcript.some(i => i.truncated !== null && i.unheard)")
    await comes_true(page, "window.firsthop.latency.barge_in_ms !== null")
    assert await state(page, "turn_state") == "interrupted"
    story = (await state(page, "transcript"))[-1]
    shown = page.locator("#transcript li.truncated")
    assert story["unheard"] not in await shown.inner_text()
    assert f"interrupted after {story['truncated'] / 1000:.1f} s" in await shown.inner_text()
    turn = (await state(page, "turns"))[0]
    assert (turn["outcome"], turn["cut"]["by"]) == ("interrupted", "button")


async def test_a_picture_is_made_small_enough_and_acknowledged(page: Page) -> None:
    await call_by_keyboard(page, "offline")
    # Noise is what a JPEG is worst at.
    await page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(1800, 1200);
            const pixels = new ImageData(1800, 1200);
            for (let at = 0; at < pixels.data.length; at += 65536) {
                crypto.getRandomValues(pixels.data.subarray(at, at + 65536));
            }
            canvas.getContext("2d").putImageData(pixels, 0, 0);
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([await canvas.convertToBlob()], "noise.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
        }"""
    )
    await comes_true(page, "document.activeElement.id === 'text' && !document.querySelector('#attached').hidden")
    await page.keyboard.press("Enter")
    await comes_true(page, "window.firsthop.transcript[0]?.picture && firsthop.transcript[0].state === 'done'")
    added = "events.find(e => e.event.type === 'conversation.item.added').event.item.content[0].type"
    assert await state(page, added) == "input_image"
    assert 20_000 < await state(page, "transcript[0].picture.length") < 200_000
    assert await state(page, "events.filter(e => e.event.type === 'error')") == []


async def test_push_to_talk_with_the_keyboard_alone(page: Page) -> None:
    await call_by_keyboard(page, "parrot")
    await page.keyboard.down("Space")
    await comes_true(page, "window.firsthop.turn_state === 'you' && window.firsthop.levels.microphone > 0.3")
    await comes_true(page, "performance.now() > (window.until ??= performance.now() + 1000)")
    await page.keyboard.up("Space")
    await comes_true(page, "window.firsthop.turns[0]?.phases.started !== undefined")
    turn = (await state(page, "turns"))[0]
    assert (turn["kind"], turn["ended_by"]) == ("held", "key")
    # A tap is no turn, and the page says why.
    await turn_to(page, "hold")
    await page.keyboard.press("Space")
    await comes_true(page, "document.querySelector('#notice').innerText.includes('Hold it down')")
    assert len(await state(page, "turns")) == 1
    sent = [e["event"]["type"] for e in await state(page, "events.filter(e => e.from === 'client')")]
    assert sent.count("input_audio_buffer.commit") == sent.count("response.create") == 1
    await turn_to(page, "call")
    await page.keyboard.press("Space")
    await comes_true(page, "window.firsthop.state === 'ended'")


async def test_turns_and_words_are_made_of_events_alone(page: Page) -> None:
    told = await page.evaluate(
        """async () => {
            const { Turns, median, segments } = await import("/turns.js");
            const { Transcript } = await import("/transcript.js");
            const turns = new Turns();
            const words = new Transcript();
            const states = [];
            const come = (at_ms, type, more = {}) => {
                turns.received({ type, ...more }, at_ms);
                words.received({ type, ...more });
                states.push(turns.state);
            };
            const detection = { type: "semantic_vad" };
            come(0, "session.created", { session: { audio: { input: { turn_detection: detection } } } });
            come(100, "input_audio_buffer.speech_started", { item_id: "a", audio_start_ms: 80 });
            turns.voice(900);
            come(1500, "input_audio_buffer.speech_stopped", { item_id: "a", audio_end_ms: 1480 });
            come(1501, "input_audio_buffer.committed", { item_id: "a" });
            come(1502, "response.created", { response: { id: "r" } });
            come(1600, "response.output_audio_transcript.delta", { response_id: "r", item_id: "b", delta: "So be it" });
            turns.sound(1595, true);
            come(1620, "output_audio_buffer.started", { response_id: "r" });
            come(1630, "response.done", { response: { id: "r", status: "completed" } });
            const stage = { name: "ears", begin_ms: 100, end_ms: 230.4, text: "Is it?" };
            turns.received({ type: "firsthop.stages", response_id: "r", stages: [stage] }, 1640);
            turns.received({ type: "firsthop.stages", response_id: "another", stages: [] }, 1640);
            // A cough: speech that is not committed, and so was no turn.
            come(2000, "input_audio_buffer.speech_started", { item_id: "c", audio_start_ms: 1980 });
            come(2100, "input_audio_buffer.speech_stopped", { item_id: "c", audio_end_ms: 2080 });
            come(2200, "input_audio_buffer.speech_started", { item_id: "d", audio_start_ms: 2180 });
            come(2205, "output_audio_buffer.cleared", { response_id: "r" });
            come(2206, "conversation.item.truncated", { item_id: "b", audio_end_ms: 570 });
            const content = [{ type: "output_audio", transcript: "So" }];
            come(2207, "conversation.item.retrieved", { item: { id: "b", content } });
            turns.playout_ms = 60;
            turns.sound(2250, true);
            turns.sound(2400, false);
            const early = turns.list[0].cut.latency_ms;
            turns.sound(2500, false);
            // A function that is asked for, and not wanted any more.
            const other = new Turns();
            const call = (type, more) => other.received({ type, ...more }, 1);
            call("input_audio_buffer.committed", { item_id: "x" });
            call("response.created", { response: { id: "y" } });
            call("response.function_call_arguments.done", { response_id: "y", name: "get_time" });
            const calling = other.state;
            call("response.done", { response: { id: "y", status: "cancelled" } });
            const { drawLatency } = await import("/latency.js");
            drawLatency(turns.list, turns.latency);
            const drawn = [...document.querySelectorAll("#turn-phases .stage, #turn-phases .stage ~ dd")];
            return {
                stages: drawn.map((part) => part.innerText),
                called: [calling, other.state, other.latest.outcome],
                turn: turns.list[0], segments: segments(turns.list[0]), states, early, latency: turns.latency,
                words: words.items.map(({ id, text, unheard, state }) => [id, text, unheard, state]),
                medians: [median([]), median([3, 1, 2]), median([4, 1])],
            };
        }"""
    )
    assert told["turn"]["ended_by"] == "browser"
    assert told["turn"]["total_ms"] == 1595 - 900
    # The reports of words and of audio came after the sound itself.
    assert [(part["name"], part["end"] - part["start"]) for part in told["segments"]] == [
        ("stopped", 600),
        ("committed", 1),
        ("created", 1),
        ("delta", 93),
        ("started", 0),
        ("heard", 0),
    ]
    assert told["stages"][:3] == ["Ears heard\nIs it?", "130 ms", "at 230"]
    assert told["early"] is None
    assert told["turn"]["cut"]["latency_ms"] == 50
    assert told["latency"] == {"p50_ms": 695, "turns": 1, "barge_in_ms": 50, "interruptions": 1}
    assert told["states"] == [
        *("listening", "you", "listening", "listening", "thinking", "thinking", "agent", "agent"),
        *("you", "agent", "you", "interrupted", "interrupted", "interrupted"),
    ]
    words = [["a", "", "", "done"], ["b", "So", " be it", "done"], ["d", "", "", "speaking"]]
    assert told["words"] == words
    assert told["called"] == ["thinking", "listening", "cancelled"]
    assert told["medians"] == [None, 2, 1]


async def test_a_long_conversation_stays_at_its_end_unless_somebody_reads_above(page: Page) -> None:
    at_end = "(box => box.scrollHeight - box.scrollTop - box.clientHeight < 2)(document.querySelector('#said'))"
    newest = "document.querySelector('#to-end').hidden"
    await page.evaluate(
        """async () => {
            const { drawTranscript } = await import("/conversation.js");
            const item = { role: "agent", kind: "message", state: "done", picture: null, truncated: null };
            window.draw = (count) => drawTranscript(
                Array.from({ length: count }, (_, i) => ({ ...item, id: `i${i}`, text: "word ".repeat(60) }))
            );
        }"""
    )
    await page.evaluate("window.draw(40)")
    await comes_true(page, f"{at_end} && {newest}")
    await page.set_viewport_size({"width": 390, "height": 844})
    await comes_true(page, f"{at_end} && {newest}")
    await page.evaluate("document.querySelector('#said').scrollTop = 100")
    await comes_true(page, f"!{newest}")
    await page.evaluate("window.draw(50)")
    await comes_true(page, "document.querySelector('#transcript').children.length === 50")
    assert await page.evaluate("document.querySelector('#said').scrollTop") == 100
    await page.get_by_role("button", name="Newest").click()
    await comes_true(page, f"{at_end} && {newest}")


@pytest.mark.trials
async def test_a_minute_without_a_lost_packet(page: Page, appliance: Appliance) -> None:
    await talk(page, appliance, LONG_TALK_S)


# --- keys: short ones, the same twice, and one that is held for as long as the browser lets one


_PRESSES = """async () => {
    const peer = new RTCPeerConnection();
    const media = await navigator.mediaDevices.getUserMedia({audio: true});
    const sender = peer.addTrack(media.getAudioTracks()[0], media);
    const channel = peer.createDataChannel('oai-events');
    const keys = [];
    channel.onmessage = ({data}) => {
        const event = JSON.parse(data);
        if (event.type === 'input_audio_buffer.dtmf_event_received') keys.push(event.event);
    };
    const open = new Promise((resolve) => { channel.onopen = resolve; });
    await peer.setLocalDescription(await peer.createOffer());
    const [url, headers] = ['/v1/realtime/calls?model=parrot', {'Content-Type': 'application/sdp'}];
    const response = await fetch(url, {method: 'POST', headers, body: peer.localDescription.sdp});
    await peer.setRemoteDescription({type: 'answer', sdp: await response.text()});
    await open;
    const over = new Promise((resolve) => {
        sender.dtmf.ontonechange = ({tone}) => { if (tone === '') resolve(); };
    });
    sender.dtmf.insertDTMF('11', 100, 70);
    await new Promise((resolve) => setTimeout(resolve, 600));
    sender.dtmf.insertDTMF('5', 6000, 70);
    await new Promise((resolve) => setTimeout(resolve, 6500));
    sender.dtmf.insertDTMF('5#D', 100, 70);
    await over;
    const deadline = Date.now() + 30000;
    while (!keys.includes('D') && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 50));
    const stats = [...(await peer.getStats()).values()];
    peer.close();
    return [keys.join(''), stats.find((each) => each.type === 'remote-inbound-rtp')?.packetsLost];
}"""


async def test_what_chromium_presses_is_told_once_each(page: Page) -> None:
    keys, lost = await page.evaluate(_PRESSES)
    assert keys == "1155#D"
    assert lost == 0
