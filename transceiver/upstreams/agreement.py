"""The agreement with upstream on who finds the caller's turns: we, who commit each, or upstream, which hears all. Pure.

Servers differ, and some say yes to what they do not do: one takes ``turn_detection: null``, shows it in
``session.updated``, and finds turns all the same; a commit ends none there. So it is also asked to clear the buffer of
which it is to leave the turns to us. Who cannot do that, or insists on turn detection, finds the turns.
"""

from __future__ import annotations

from typing import Any, Literal

from transceiver.agents import Settings
from transceiver.upstreams.events import OWN, RATE_HZ, message, session, turns_of

__all__ = ["Agreement", "Who"]

Who = Literal["session", "upstream"]
_CLEAR = f"{OWN}clear"


class Agreement:
    """The beginning of one connection. ``send`` are the first events; ``take`` is given upstream's, and returns those
    that follow. ``who`` finds the turns, None while that is open; ``refused`` says in words what upstream does not
    do."""

    def __init__(self, wanted: Literal["auto", "session", "upstream"], settings: Settings) -> None:
        self.who: Who | None = "session" if wanted == "session" else None
        self.refused = ""
        self.complaint = "the connection broke"  # why upstream may have ended the connection
        self._settings = settings
        self._asked: Who = "upstream" if wanted == "upstream" else "session"
        self._auto = wanted == "auto"
        self._cleared = self._updated = False
        self._unanswered = 2 if self._auto else 0  # of the events that come first
        self.send = [self._session()]
        if self._auto:
            self.send.append({"type": "input_audio_buffer.clear", "event_id": _CLEAR})

    def _session(self) -> dict[str, Any]:
        if self._asked == "session":
            return session(self._settings, None)
        return session(self._settings, turns_of(self._settings))

    def take(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Takes one of upstream's events while ``who`` is open."""
        kind = event.get("type")
        if self.who is not None:
            return []
        if kind == "error":
            return self._error(event.get("error"))
        if kind == "input_audio_buffer.cleared":
            self._cleared = True
            self._unanswered -= 1
        elif kind == "session.updated":
            self._updated = True
            self._unanswered -= 1
            audio = _part(event, "session", "audio")
            if why := _other_format(_part(audio, "output", "format")):
                self.refused = why
            finds = _part(audio, "input", "turn_detection") or _part(event, "session", "turn_detection")
            if self._asked == "upstream":
                self.who = "upstream"
            elif finds:
                return self._give_way()
        if self._cleared and self._updated and self.who is None:
            self.who = "session"
        return []

    def _error(self, error: Any) -> list[dict[str, Any]]:
        self.complaint = message(error)
        first, self._unanswered = self._unanswered > 0, max(self._unanswered - 1, 0)
        if self._auto and self._asked == "session":
            return self._give_way()
        if not first:
            self.refused = message(error)
        return []

    def _give_way(self) -> list[dict[str, Any]]:
        self._asked, self._updated = "upstream", False
        return [self._session()]

    def expire(self) -> None:
        """Settles what is open, because upstream says nothing more: what was asked for last is taken to hold."""
        self.who = self.who or self._asked


def _part(of: Any, *names: str) -> Any:
    for name in names:
        of = of.get(name) if isinstance(of, dict) else None
    return of


def _other_format(format_: Any) -> str:
    kind, rate = _part(format_, "type"), _part(format_, "rate")
    if kind in (None, "audio/pcm") and rate in (None, RATE_HZ):
        return ""
    return f"it speaks {str(kind)[:32]} at {str(rate)[:8]} Hz, and audio/pcm at {RATE_HZ} Hz was asked for"
