"""The input audio buffer and its turns, ended by the server's turn detection or by the client. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
from msgspec import Struct

from rtc.frame import FRAME_MS
from rtc.vad.detector import ONSET_MS, Detector, DetectorState, Vad, detector
from transceiver.parts import Parts, Sound, SoundState
from transceiver.realtime.config import SemanticVad, ServerVad, TurnDetection
from transceiver.realtime.judging import EAGERNESS, JUDGED_S, Judge, Judging, Patience

__all__ = ["Listening", "ListeningState"]

_LONGEST_MS = 60_000  # of a turn; of a longer one the end is kept
# What semantic_vad waits for without a judge: at least, where the speech sounds finished, and at most.
_WAITS_MS = {"high": (400, 2000), "medium": (600, 4000), "auto": (600, 4000), "low": (900, 8000)}
_LED_PADDING_MS = 2000  # before what somebody else calls the beginning of a turn, who says so later
_LEARNT = 20  # frames by which a new detector learns the noise
_END_FRAMES = 12  # of voice, whose loudness tells how it ended


class ListeningState(Struct, frozen=True, array_like=True):
    """The input audio buffer as a value: its frames, and the turn that is being spoken."""

    position_ms: int
    voiced_ms: int
    frames: SoundState
    part: bytes
    loudness: list[float]
    detector: DetectorState


class Listening:
    """The buffer and its turns: it takes frames of 20 ms, mono PCM16 of ``rate_hz``, and gives edges of turns. Times
    are ms of audio since the beginning. Where nobody ``wants`` what was said in a turn, it is not kept. ``eagerness``
    is the patience by which the ``judge`` ends turns."""

    def __init__(
        self,
        rate_hz: int,
        turns: TurnDetection | None,
        *,
        vad: Vad = "webrtc",
        judge: Judge | None = None,
        eagerness: Mapping[str, Patience] = EAGERNESS,
    ) -> None:
        self.position_ms = 0
        self.voiced_ms = 0  # of the turn that is being spoken
        self.paused_ms = 0  # of the pauses_ms, that of which the present pause has been told last
        self._pauses_ms: Sequence[int] = ()
        self._rate_hz = rate_hz
        self._bytes_ms = 2 * rate_hz // 1000
        self._frames = Sound()  # that are whole
        self._frame_bytes = FRAME_MS * self._bytes_ms
        self._part = b""
        self._loudness: deque[float] = deque(maxlen=_LONGEST_MS // FRAME_MS)
        self._turns = turns
        self.led = False  # whether somebody else says when turns begin and end
        self._to_lead = False  # from the end of the present turn on
        self._led_turn = False  # whether that one has begun a turn and not ended it
        self.wants = True
        self._vad = vad
        self._judging = None if judge is None else Judging(judge, rate_hz)
        self._eagerness = eagerness
        self._detector = self._made()

    def configure(self, turns: TurnDetection | None) -> None:
        """Sets how turns are found from now on; a turn that is being spoken goes on where nothing changed."""
        if turns != self._turns:
            self._turns = turns
            self._detector = self._made()

    def serve(self, wants: bool, pauses_ms: Sequence[int]) -> None:
        """Sets whether somebody wants what is said in a turn, and wants to know of a pause within it at ``pauses_ms``
        of silence. One that has begun is news to that one."""
        self.wants, self._pauses_ms, self.paused_ms = wants, pauses_ms, 0

    def _made(self) -> Detector:
        turns = self._turns
        if isinstance(turns, ServerVad):
            return detector(self._rate_hz, self._vad, silence_ms=turns.silence_duration_ms, threshold=turns.threshold)
        return detector(self._rate_hz, self._vad)

    @property
    def speaking(self) -> bool:
        """Whether a turn is being spoken, as far as turn detection knows."""
        return self._turns is not None and (self._led_turn if self.led else self._detector.speaking)

    @property
    def gathers(self) -> bool:
        """Whether what comes now is kept for a turn that somebody wants."""
        return self.wants and (self._turns is None or self.speaking)

    def lead(self, led: bool) -> None:
        """Has somebody else say when turns begin and end, once nothing is being said; or has them found here again: a
        turn that the other had begun ends when there is silence."""
        self._to_lead = led and self.speaking
        self.led = led and not self._to_lead

    def led_edge(self, speaking: bool) -> bool:
        """Takes note that a turn begins or ends, from who says so. Returns whether it does."""
        if not self.led or self._turns is None or self._led_turn == speaking:
            return False
        self._led_turn = speaking
        if speaking:
            self.voiced_ms = 0
        return True

    def left_open(self) -> None:
        """Takes note that somebody else had begun a turn, who is not there any more."""
        self._led_turn = True

    @property
    def voiced(self) -> bool:
        """Whether the last frame was voice."""
        return self._detector.voiced

    @property
    def quiet_ms(self) -> int:
        """How much silence there has been within the turn."""
        return self._detector.quiet_ms

    @property
    def buffered_ms(self) -> int:
        """The length of audio that could be committed."""
        return (len(self._frames) + len(self._part)) // self._bytes_ms

    def push(self, frame: bytes) -> str:
        """Takes a frame. Returns ``started``, ``stopped``, within a turn ``paused`` or ``resumed``, or nothing. At an
        edge the buffer holds the turn with what was before it."""
        turns, detector = self._turns, self._detector
        spoke = self.speaking
        if isinstance(turns, SemanticVad) and spoke and not self.led:
            detector.silence_ms = self._wait_ms(turns)
        edge = detector.push(frame)
        self._frames.put(frame)
        self.position_ms += FRAME_MS
        if turns is None:
            self._keep_ms(_LONGEST_MS)
            return ""
        edge = self._edge(edge)
        speaking = self.speaking
        if speaking and detector.voiced:
            self.voiced_ms = self.voiced_ms + FRAME_MS if spoke else ONSET_MS - FRAME_MS
            if isinstance(turns, SemanticVad):
                samples = np.frombuffer(frame, np.int16).astype(np.float32)
                self._loudness.append(float(np.sqrt(samples @ samples / max(len(samples), 1))))
        if edge == "started":
            self._loudness.clear()
            self.paused_ms = 0
        if edge or (speaking and self.wants):
            self._keep_ms(_LONGEST_MS)
        else:
            padding_ms = turns.prefix_padding_ms if isinstance(turns, ServerVad) else 300
            self._keep_ms(_LED_PADDING_MS if self.led else padding_ms + ONSET_MS)
        if self._pauses_ms and not self.led:
            return edge or (self._paused() if speaking else "")
        return edge

    def _paused(self) -> str:
        quiet_ms, told_ms = self._detector.quiet_ms, self.paused_ms
        self.paused_ms = max((ms for ms in self._pauses_ms if ms <= quiet_ms), default=0)
        if self.paused_ms > told_ms:
            return "paused"
        return "resumed" if self.paused_ms < told_ms else ""

    def _edge(self, found: str) -> str:
        """The edge that there is where ours ``found`` one, or none."""
        if self.led:
            return ""
        if not self._detector.speaking:
            if self._led_turn:
                found, self._led_turn = "stopped", False
            if not found:  # the turn that has just ended is ours
                self.led, self._to_lead = self._to_lead, False
        return found

    def _keep_ms(self, most_ms: int) -> None:
        while len(self._frames) > most_ms * self._bytes_ms:
            self._frames.take(self._frame_bytes)

    def add(self, pcm: bytes) -> None:
        """Adds audio of any length without looking for turns in it: the client commits it."""
        self._part += pcm
        whole = len(self._part) // self._frame_bytes * self._frame_bytes
        self._frames.put(self._part[:whole])
        self._keep_ms(_LONGEST_MS)
        self.position_ms += whole // self._bytes_ms
        self._part = self._part[whole:]

    def part(self) -> bytes:
        """Takes out of the buffer what was added and is not a whole frame yet."""
        part, self._part = self._part, b""
        return part

    def so_far(self) -> bytes:
        """All that is in the buffer, which stays there."""
        return self._frames.whole() + self._part

    def take(self) -> bytes:
        """Returns all that is in the buffer, and empties it."""
        pcm = self.so_far()
        self.clear()
        return pcm

    def clear(self) -> None:
        """Forgets what is in the buffer."""
        self._frames.clear()
        self._part = b""

    def _wait_ms(self, turns: SemanticVad) -> int:
        """The length of silence that ends the turn, by the judge or by loudness. A voice falls at the end of what it
        had to say; one that breaks off at its usual loudness, or above, is likely to go on."""
        if self._judging is not None:
            return self._judging.wait_ms(self._detector.quiet_ms, self._eagerness[turns.eagerness], self._judged)
        least, most = _WAITS_MS[turns.eagerness]
        if len(self._loudness) < 2 * _END_FRAMES:
            return least
        usual = sum(self._loudness) / len(self._loudness)
        end = sum(islice(reversed(self._loudness), _END_FRAMES)) / _END_FRAMES
        unfinished = min(max((end / max(usual, 1.0) - 1.0) / 0.5, 0.0), 1.0)
        return round(least + (most - least) * unfinished)

    def _judged(self) -> bytes:
        return self._frames.last(JUDGED_S * self._rate_hz * 2)

    # --- as a value

    def export(self, parts: Parts) -> ListeningState:
        """All of it, less how turns are found."""
        return ListeningState(
            self.position_ms,
            self.voiced_ms,
            self._frames.export(parts),
            self._part,
            list(self._loudness),
            self._detector.export(),
        )

    def take_up(self, state: ListeningState, parts: Sequence[bytes]) -> None:
        """Goes on where ``export`` left off. Raises ValueError where the state is of another detector."""
        self.position_ms, self.voiced_ms, self._part = state.position_ms, state.voiced_ms, state.part
        self._frames = Sound.taken_up(state.frames, parts, _LONGEST_MS * self._bytes_ms)
        learnt, size = self._frames.last(_LEARNT * self._frame_bytes), self._frame_bytes
        self._loudness.extend(state.loudness)
        self._detector.take_up(state.detector, [learnt[at : at + size] for at in range(0, len(learnt), size)])
