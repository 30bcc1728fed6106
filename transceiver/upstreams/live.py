"""A connection over which upstream hears the caller all the time and finds the turns. Pure.

Upstream begins responses by itself. Each is *offered*: we ask for a response of ours, and when it is there it takes the
offer. A response of upstream's that nobody wants any more is dropped, whatever still comes of it; what the caller heard
of it upstream is told (``conversation.item.truncate``), so that it does not believe more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from transceiver.agents import Cue
from transceiver.upstreams.events import OWN, audio_of, item_of, response_of

__all__ = ["Live", "Offer"]

_BYTES_MS = 48  # of 24 kHz mono PCM16
_MOST_DROPPED = 64  # responses
_MOST_SAID = 16  # responses whose items are known
_MOST_UNNAMED = 64  # turns
_MOST_ITEMS = 128  # of a response
_MOST_TEXT = 64 << 10  # characters of a turn
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"

# What a response of ours is for: one that upstream has begun, one that it took back meanwhile, or one to be asked for.
Offer = Literal["begun", "taken back", "none"]


class Live:
    """The state of such a connection. ``transcribed(item, text)`` is told the words of our items."""

    def __init__(self, transcribed: Callable[[str, str], None]) -> None:
        self.speaking = False  # the caller, as far as upstream knows
        self.answers = 0  # responses that upstream began, and turns in which it heard no words
        self.interrupts = True
        self._transcribed = transcribed
        self._offers: deque[str] = deque()
        self._cued = False  # we have asked for a response of ours that is to take an offer
        self._taken_back = False
        self._asked = False  # for a response that has not begun
        self._unwanted = 0  # of those that we asked for, which have not begun
        self.told_whole = False  # a turn was told at once, which upstream is to find in what it was told
        self._current = ""  # upstream's id of the response that is being taken
        self._over = True  # that one
        self._dropped: dict[str, None] = {}
        self._said: dict[str, list[tuple[str, int, int]]] = {}  # by our id: upstream's items and their bytes
        self._theirs: deque[str] = deque(maxlen=_MOST_UNNAMED)  # turns that have no name of ours
        self._ours: deque[str] = deque(maxlen=_MOST_UNNAMED)  # and those of ours that have no name of theirs
        self._names: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._turns = 0  # that have ended, and are not items of ours yet

    # --- what upstream says

    def take(self, event: dict[str, Any]) -> tuple[list[Cue], bool]:
        """Takes one of upstream's events. Returns what is to be said to the session, and whether the event is for the
        response that is taken, or will be."""
        kind, id_ = event.get("type"), response_of(event)
        if kind == "input_audio_buffer.speech_started":
            return self._began(), False
        if kind in ("input_audio_buffer.speech_stopped", "input_audio_buffer.committed"):
            return self._ended(event if kind.endswith("committed") else None), False
        if kind == _TRANSCRIBED:
            self._text(item_of(event), event.get("transcript"))
            return [], False
        if kind == "response.created":
            return self._created(id_)
        if id_ in self._dropped:
            return [], False
        if kind == "response.done" and _interrupted(event):
            return self._cut_by_upstream(id_)
        return [], str(kind).startswith("response.") or kind == "error"

    def _began(self) -> list[Cue]:
        if self.speaking or self.told_whole:
            return []
        self.speaking = True
        self._unwanted = 0
        if self.interrupts:
            self._taken_back = self._cued
            self._cued = False
            while self._offers:
                self._drop(self._offers.popleft())
        return ["began"]

    def _ended(self, committed: dict[str, Any] | None) -> list[Cue]:
        if committed is not None:
            self._name(their=item_of(committed))
        if not self.speaking:
            return []
        self.speaking = self._taken_back = False
        self._turns += 1
        return ["ended"]

    def _created(self, id_: str) -> tuple[list[Cue], bool]:
        self.answers += 1
        if self._asked:
            self._asked, self._current, self._over = False, id_, False
            return [], True
        if self._unwanted:
            self._unwanted -= 1
            self._drop(id_)
            return [], False
        self._offers.append(id_)
        if self._cued:
            return [], True
        self._cued = True
        return ["answer"], True

    def _cut_by_upstream(self, id_: str) -> tuple[list[Cue], bool]:
        """The caller has spoken over a response, which upstream may say before it says that the caller speaks."""
        if id_ in self._offers:
            self._offers.remove(id_)
            self._drop(id_)
            self._cued, self._taken_back = bool(self._offers), self._cued and not self._offers
            return [], False
        return self._began(), True

    def _drop(self, id_: str) -> None:
        self._dropped[id_] = None
        while len(self._dropped) > _MOST_DROPPED:
            self._dropped.pop(next(iter(self._dropped)))

    def wanted(self, event: dict[str, Any]) -> bool:
        """Whether an event that was kept is still wanted."""
        return response_of(event) not in self._dropped

    # --- responses of ours

    def accept(self) -> Offer:
        """What a response of ours is for that begins now; one of which upstream has begun the answer takes that."""
        self._taken_back, taken_back = False, self._taken_back
        if not self._offers:
            self._cued = False
            return "taken back" if taken_back else "none"
        self._current, self._over = self._offers.popleft(), False
        return "begun"

    def again(self) -> list[Cue]:
        """What is to be said to the session once a response of ours has taken what it was for."""
        self._cued = bool(self._offers)
        return ["answer"] if self._cued else []

    def ask(self, whole: str = "") -> None:
        """Takes note that the next response that upstream begins is the one that we take: we asked for it, or told a
        turn of ours at once, which has the id ``whole``."""
        self._asked, self.told_whole = True, bool(whole)
        if whole:
            self._name(ours=whole)

    @property
    def asked(self) -> bool:
        """Whether what we asked for has not begun yet."""
        return self._asked

    def streamed(self, ours: str, event: dict[str, Any]) -> None:
        """Takes note of what our response of that id was given."""
        if event.get("type") == "response.done":
            self._over, self.told_whole = True, False
        if not (pcm := audio_of(event)):
            return
        items = self._said.setdefault(ours, [])
        item, index = item_of(event), event.get("content_index")
        if items and items[-1][0] == item:
            items[-1] = item, items[-1][1], items[-1][2] + len(pcm)
        elif len(items) < _MOST_ITEMS:
            items.append((item, index if isinstance(index, int) else 0, len(pcm)))
        while len(self._said) > _MOST_SAID:
            self._said.pop(next(iter(self._said)))

    def cancelled(self, ours: str, heard_ms: int | None, *, taken: bool) -> list[dict[str, Any]]:
        """What upstream is to be told where nobody wants our response of that id any more. Of it ``heard_ms`` were
        heard, all that came where that is None; ``taken`` says whether it was still being taken."""
        send: list[dict[str, Any]] = []
        items = self._said.pop(ours, [])
        if taken and (self._asked or not self._over):
            current = "" if self._asked else self._current
            if self._asked:
                self._unwanted += 1
            else:
                self._drop(current)
            self._asked, self._over, self.told_whole = False, True, False
            if not self.speaking:  # else upstream has cancelled it
                named = {"response_id": current} if current else {}
                send.append({"type": "response.cancel", "event_id": f"{OWN}cancel", **named})
        if heard_ms is not None:
            left = heard_ms
            for item, index, size in items:
                ms = size // _BYTES_MS
                if left < ms:
                    where = {"item_id": item, "content_index": index, "audio_end_ms": max(left, 0)}
                    send.append({"type": "conversation.item.truncate", "event_id": f"{OWN}truncate", **where})
                left -= ms
        return send

    # --- names of turns

    def committed(self, ours: str) -> bool:
        """Takes note of a turn of ours; returns whether it is one that upstream heard."""
        if not self._turns:
            return False
        self._turns -= 1
        self._name(ours=ours)
        return True

    def _name(self, *, ours: str = "", their: str = "") -> None:
        if ours:
            self._ours.append(ours)
        if their:
            self._theirs.append(their)
        while self._ours and self._theirs:
            self._names[self._theirs.popleft()] = self._ours.popleft()
        while len(self._names) > _MOST_UNNAMED:
            self._names.pop(next(iter(self._names)))
        for theirs in [theirs for theirs in self._texts if theirs in self._names]:
            self._transcribed(self._names.pop(theirs), self._texts.pop(theirs))

    def _text(self, their: str, text: object) -> None:
        if not isinstance(text, str):
            return
        self.answers += not text.strip()
        self._texts[their] = text[:_MOST_TEXT]
        while len(self._texts) > _MOST_UNNAMED:
            self._texts.pop(next(iter(self._texts)))
        self._name()


def _interrupted(event: dict[str, Any]) -> bool:
    response = event.get("response")
    response = response if isinstance(response, dict) else {}
    details = response.get("status_details")
    return (
        response.get("status") == "cancelled" and isinstance(details, dict) and details.get("reason") == "turn_detected"
    )
