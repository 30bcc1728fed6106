"""A conversation, its agent and its client, all in one place and on a clock that only tests move."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from transceiver.agents import Item, Settings
from transceiver.realtime.config import Config
from transceiver.realtime.conversation import Conversation
from transceiver.realtime.pictures import Schemes
from transceiver.realtime.reading import write
from transceiver.realtime.response import Making
from transceiver.talk import protocol

RATE_HZ = 24000
QUIET = bytes(960)
MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
NO_TURNS = {"audio": {"input": {"turn_detection": None}}}


def loud(seed: int = 1) -> bytes:
    """20 ms that the detector takes for a voice."""
    t = np.arange(480) + 480 * seed
    tone = sum(np.sin(2 * np.pi * 140 * k * t / RATE_HZ) / k for k in range(1, 20))
    return (tone * 6000).astype(np.int16).tobytes()


class Partner:
    """An agent that writes down what it is told, and answers when the test says so."""

    responds = True
    wants_turns = True
    listens = False
    yields_after_ms = 0
    pauses_ms: Sequence[int] = ()

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.settings = Settings()
        self.heard_ms = 0
        self.makings: list[Making] = []
        self.items: list[Item] = []

    def configured(self, settings: Settings) -> None:
        self.settings = settings

    def heard(self, pcm: bytes, speaking: bool) -> None:
        self.heard_ms += 20

    def speech_started(self) -> None:
        self.told.append("started")

    def speech_stopped(self) -> None:
        self.told.append("stopped")

    def speech_paused(self, ms: int, items: Sequence[Item]) -> None:
        self.told.append(("paused", ms, [item.id for item in items], len(items[-1].pcm)))

    def speech_resumed(self) -> None:
        self.told.append("resumed")

    def committed(self, item: Item) -> None:
        self.items.append(item)
        self.told.append("committed")

    def respond(self, making: protocol.Making) -> None:
        assert isinstance(making, Making)
        self.makings.append(making)
        self.told.append("respond")

    def cancelled(self, making: protocol.Making) -> None:
        self.told.append(("cancelled", making.id))

    def dtmf(self, digit: str) -> None:
        self.told.append(("dtmf", digit))

    def event(self, event: dict[str, Any]) -> None:
        self.told.append(event)

    def resume(self, state: object, items: Sequence[Item]) -> None:
        self.told.append(("resume", state, [item.id for item in items]))


class Scene:
    """A conversation and its surroundings: with ``media`` as over WebRTC, else as over a WebSocket."""

    def __init__(
        self,
        *,
        media: bool = True,
        session: dict[str, Any] | None = None,
        locked: Sequence[str] = (),
        pictures: Schemes = "data",
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self.played: list[bytes] = []
        self.sent_bytes = 0
        self.now = 100.0
        self.media = media
        self.partner = Partner()
        config = Config("rtc_1", "test")
        config.update(session or {})
        config.lock(locked)
        self.conversation = Conversation(config, self.partner, self, rate_hz=RATE_HZ, media=media, pictures=pictures)
        self.conversation.begin()

    def emit(self, event: dict[str, Any]) -> None:
        self.sent_bytes += len(write(event))
        self.events.append(event)

    def play(self, pcm: bytes) -> None:
        assert len(pcm) == 960
        self.played.append(pcm)

    def media_so_far(self) -> dict[str, Any]:
        return {"heard": {"heard": len(self.played)}}

    def says(self, type_: str, **fields: Any) -> None:
        self.conversation.client_event(json.dumps({"type": type_, **fields}), self.now)

    def hear(self, ms: int, frame: bytes | None = None) -> None:
        """Feeds so much audio of the caller's, in time; a voice unless a frame is given."""
        for i in range(ms // 20):
            self.now += 0.02
            if self.media:
                self.conversation.hear(loud(i) if frame is None else frame, self.now)
            self.conversation.tick(self.now)

    def turn(self) -> None:
        """Has the caller say something, and fall silent."""
        self.hear(600)
        self.hear(700, QUIET)

    def wait(self, ms: int) -> None:
        for _ in range(ms // 20):
            self.now += 0.02
            self.conversation.tick(self.now)

    def take(self) -> list[dict[str, Any]]:
        """The events since last time."""
        events, self.events = self.events, []
        return events

    def types(self) -> list[str]:
        return [event["type"] for event in self.take()]

    def error(self) -> dict[str, Any]:
        """The only event there is, which is an error."""
        (event,) = self.take()
        assert event["type"] == "error", event
        error: dict[str, Any] = event["error"]
        return error


def every_client_event() -> list[dict[str, Any]]:
    """One event of each type, in an order in which each makes sense."""
    user = {"id": "u1", "type": "message", "role": "user"}
    text, picture = {"type": "input_text", "text": "hello"}, "data:image/png;base64,AA=="
    return [
        {
            "type": "session.update",
            "event_id": "e1",
            "session": {
                "type": "realtime",
                "model": "test",
                "instructions": "be kind",
                "output_modalities": ["audio"],
                "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
                "tool_choice": "auto",
                "tracing": {"workflow_name": "w"},
                "max_output_tokens": 100,
                "include": ["item.input_audio_transcription.logprobs"],
                "prompt": {"id": "p"},
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000},
                        "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
                        "transcription": {"model": "m"},
                        "noise_reduction": {"type": "near_field"},
                    },
                    "output": {"voice": "marin", "format": {"type": "audio/pcm", "rate": 24000}, "speed": 1.25},
                },
            },
        },
        {"type": "input_audio_buffer.append", "audio": "AAAA" * 4800},
        {"type": "input_audio_buffer.commit", "event_id": "e2"},
        {"type": "input_audio_buffer.clear"},
        {
            "type": "conversation.item.create",
            "item": {**user, "content": [text, {"type": "input_image", "image_url": picture}]},
        },
        {
            "type": "conversation.item.create",
            "previous_item_id": "u1",
            "item": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        },
        {
            "type": "conversation.item.create",
            "item": {"type": "function_call_output", "call_id": "c", "output": "{}"},
        },
        {"type": "conversation.item.retrieve", "item_id": "u1"},
        {
            "type": "response.create",
            "response": {
                "conversation": "none",
                "instructions": "rhyme",
                "output_modalities": ["text"],
                "metadata": {"topic": "x"},
                "input": [{"type": "item_reference", "id": "u1"}],
            },
        },
        {"type": "response.create"},
        {"type": "response.cancel"},
        {"type": "output_audio_buffer.clear"},
        {"type": "conversation.item.truncate", "item_id": "u1", "content_index": 0, "audio_end_ms": 10},
        {"type": "conversation.item.delete", "item_id": "u1"},
    ]


def turn_detection(**fields: Any) -> dict[str, Any]:
    return {"audio": {"input": {"turn_detection": fields}}}


def seconds(count: float) -> bytes:
    return b"\1\2" * round(24000 * count)
