"""The same as conversation.mjs, for the clients that run in Python; no package but what each of them brings."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

PACKETS = 100  # two seconds
FRAMES = 50  # of ours that the agent has heard


def place(url: str, token: str, sdp: str) -> tuple[str, Callable[[], int]]:
    """Posts an offer. Returns the answer, and a function that hangs up."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
    asked = urllib.request.Request(f"{url}/v1/realtime/calls?model=loopback", sdp.encode(), headers)
    with urllib.request.urlopen(asked, timeout=30) as placed:
        where, answer = url + placed.headers["Location"], placed.read().decode()

    def hang_up() -> int:
        with urllib.request.urlopen(urllib.request.Request(where, headers=headers, method="DELETE"), timeout=30) as ok:
            return int(ok.status)

    return answer, hang_up


class Conversation:
    """Fed with the channel's messages; ``send`` is the channel's, ``heard()`` counts the packets of the agent's voice.
    ``poll`` is called now and then; it says whether all has been said."""

    def __init__(self, send: Callable[[str], object], heard: Callable[[], int]) -> None:
        self._send, self._heard = send, heard
        self._events: dict[str, dict[str, Any]] = {}
        self._asked = self._answered = False

    def take(self, text: str) -> None:
        event = json.loads(text)
        self._events[event["type"]] = event
        if event["type"] == "session.created":
            session = {"type": "realtime", "instructions": "Be kind."}
            self._send(json.dumps({"type": "session.update", "session": session}))
        if event["type"] == "firsthop.media":
            self._answered = event["heard"].get("heard", 0) >= FRAMES
            self._asked = self._answered

    def poll(self) -> bool:
        if not self._asked and "session.updated" in self._events and self._heard() >= PACKETS:
            self._asked = True
            self._send(json.dumps({"type": "firsthop.media.retrieve"}))
        return self._answered

    @property
    def result(self) -> dict[str, Any]:
        instructions = self._events["session.updated"]["session"]["instructions"]
        return {"instructions": instructions, "heard": self._heard(), "media": self._events["firsthop.media"]["heard"]}
