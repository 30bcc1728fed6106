"""A caller's voice over an agent that speaks: whether it takes the floor. Pure.

By ``semantic_vad``, where a judge can say which words they are, "mm-hm" and "okay" leave the floor to the agent
(backchannels: Yngve, "On getting a word in edgewise", 1970), and so does a cough, which has no words. The agent pauses
while that is found out, so a word silences it as soon as any voice would.
"""

from __future__ import annotations

import re
from functools import partial

from rtc.frame import FRAME_MS
from transceiver.realtime.config import SemanticVad, TurnDetection
from transceiver.realtime.judging import Judge
from transceiver.realtime.listening import Listening

__all__ = ["Overlap", "backchannel"]

_AGAIN_MS = 400  # of more voice, after which it is asked again
_MOST_ASKED = 4  # of one voice: what goes on for so long is no backchannel, whatever its words are
_SHORT_MS = 120  # of voice may be a word ...
_QUIET_MS = 160  # ... and are looked at when it is followed by so much silence
_PATIENCE_MS = 400  # with the judge
_MOST_WORDS = 4
_HUMS = re.compile(r"[hmu]+|[aeo]+h*[ha]*|ugh")  # mm-hm, uh-huh, um, ah, oh
_ALONE = (
    *("alright", "all", "awesome", "cool", "course", "exactly", "fine", "good", "got", "great", "i", "it", "nice"),
    *("of", "ok", "okay", "right", "see", "sure", "thank", "thanks", "true", "wow", "yeah", "yep", "yes", "you"),
)
_BACKCHANNELS = frozenset(_ALONE)
_WORDS = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def backchannel(text: str) -> bool:
    """Whether there is nothing in ``text`` but what listeners say to show that they listen."""
    words = _WORDS.findall(text.casefold())
    return len(words) <= _MOST_WORDS and all(word in _BACKCHANNELS or _HUMS.fullmatch(word) for word in words)


class Overlap:
    """One voice at a time. ``over`` says whether it began over the agent and has not taken the floor, and ``holds``
    whether the agent is to pause."""

    def __init__(self, judge: Judge | None, rate_hz: int) -> None:
        self._judge, self._rate_hz = judge, rate_hz
        self._voice = 0  # the number of the present one
        self.begin(False, None)

    def begin(self, busy: bool, turns: TurnDetection | None) -> None:
        """Takes note that another voice begins, while the agent is ``busy`` speaking or not."""
        self._voice += 1
        self.over = busy and turns is not None and turns.interrupt_response
        self._words = isinstance(turns, SemanticVad)
        self.holds = self._said = False
        self._asked = self._waited_ms = 0
        self._asked_at_ms = 0  # of its voice
        self._waits = self._unknown = self._takes = False

    def end(self) -> bool:
        """Takes note that it has ended. Returns whether it was over the agent to its end."""
        over = self.over
        self.begin(False, None)
        return over

    def takes_floor(self, listening: Listening, least_ms: int, busy: bool) -> bool:
        """Whether it takes the floor from the agent now, asked every 20 ms. Without a judge ``least_ms`` of voice do;
        with one the words count, from there on, or where the voice ends before. Of an agent that is not ``busy`` any
        more words get it, whatever they are."""
        if not self.over:
            return False
        takes = self._enough(listening, least_ms)
        if takes or (self._said and not busy):
            self.end()
        return takes

    def _enough(self, listening: Listening, least_ms: int) -> bool:
        voiced_ms = listening.voiced_ms
        if self._judge is None or not self._words or self._unknown:
            return voiced_ms >= least_ms
        if self._waits:
            self._waited_ms += FRAME_MS
            if self._waited_ms >= _PATIENCE_MS:
                self._told(self._voice, None)
        elif not self._takes:
            due = voiced_ms >= (self._asked_at_ms + _AGAIN_MS if self._asked else least_ms)
            short = listening.quiet_ms >= _QUIET_MS and voiced_ms >= self._asked_at_ms + _SHORT_MS
            if self._asked >= _MOST_ASKED:
                self._takes = due
            elif due or short:
                self._ask(self._judge, voiced_ms, listening.so_far())
                self.holds = due and self._waits
        return self._takes or (self._unknown and voiced_ms >= least_ms)

    def _ask(self, judge: Judge, voiced_ms: int, pcm: bytes) -> None:
        self._asked += 1
        self._asked_at_ms, self._waited_ms, self._waits = voiced_ms, 0, True
        judge.words(pcm, self._rate_hz, partial(self._told, self._voice))

    def _told(self, voice: int, text: str | None) -> None:
        if voice != self._voice or not self._waits:
            return
        self._waits = self.holds = False
        self._unknown = text is None
        self._said = bool(text)
        self._takes = text is not None and not backchannel(text)
