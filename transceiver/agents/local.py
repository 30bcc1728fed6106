"""The agent ``local``: a conversation by small models on this machine, with no network. Whisper hears, rules and then
SmolLM2 think, and hibari speaks (``transceiver.engine``). English.

It works while nobody knows yet whether the turn has ended: after 100 ms of silence it transcribes, and after 200 ms it
thinks and begins to speak into a draft, which becomes the answer if the turn ends there, and is thrown away if the
caller speaks on. Its first words are spoken while it still thinks of the others. What was said before is read before it
is asked, while the mind has nothing else to do. The caller's words are told while they
are spoken.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from runtime import config
from runtime.tracing.spans import Span, now
from transceiver.agents import Item, Line, Response, Settings
from transceiver.engine import VOICE_RATE_HZ, Engine, EngineError, Message, weights
from transceiver.engine.client import Client
from transceiver.speech.brain import NO_WORDS, fact, seen, tool_call
from transceiver.speech.draft import Draft
from transceiver.speech.partial import Partial
from transceiver.speech.sentences import FIRST_WORDS, Sentences
from transceiver.speech.stages import ASKED, Stages
from transceiver.speech.tasks import Answering, Failure, background

# Its wording matters: with "friendly" or "telephone" in it the model answered half of all questions in French.
_INSTRUCTIONS = "You are a helpful assistant. Answer in English, in one short sentence."
_ABOUT = "I am the agent local. Three small models on this machine hear you, think, and speak."
_CALL = 0  # the number of the only call on this agent's connection
_MOST_TOKENS = 28  # of an answer: half a second of a core, and five seconds to listen to
_MOST_TURNS = 128  # whose text is remembered
_MESSAGES, _AT_ONCE = 48, 32  # of the history: the oldest are left out seldom, and many at once
_BEFORE = 19  # frames of 20 ms before the beginning of speech was noticed
_LISTENS_MS, _ANSWERS_MS = 100, 200  # of silence: the ears are ready when it is worth while to think
_PART_BYTES = 2 * VOICE_RATE_HZ * 3 // 2  # of new speech make it worth listening again
_LONGEST_BYTES = 2 * VOICE_RATE_HZ * 25  # of a turn whose words are told while it is spoken
_WHOLE = re.compile(r".*[.!?…][\"')\]]*", re.DOTALL)


Say = Callable[[str], Awaitable[None]]


@dataclass(slots=True)
class _Early:
    """The answer to a turn that may have ended: ``items`` names the conversation that it answers."""

    items: list[tuple[str, str]]
    settings: Settings
    text: asyncio.Future[str]
    stages: Stages
    draft: Draft


class Agent(Answering):
    """One call's use of the engine."""

    pauses_ms = (_LISTENS_MS, _ANSWERS_MS)

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._engine = connection(self.config.engine, lambda: self.line.span)
        self._settings = Settings()
        self._texts: dict[str, asyncio.Future[str]] = {}
        self._early: _Early | None = None
        self._getting_ready: asyncio.Future[None] | None = None
        self._before: deque[bytes] = deque(maxlen=_BEFORE)
        self._turn = ""
        self._heard = bytearray()  # of the turn that is being spoken
        self._partial, self._part_at = Partial(), 0
        self._listening: asyncio.Future[str] | None = None
        self._listening_at = 0.0
        self._pause = False  # whether that hears all that is said, if the turn ends now
        self._told: dict[str, Any] = {}  # the stages of the last answer
        self._ahead: list[Message] = []  # what the mind has read before it is asked, or was to
        self._reading: asyncio.Future[None] | None = None

    @classmethod
    def unfit(cls) -> str:
        return weights.trouble(memory=False) or ""

    # --- the caller speaks

    def speech_started(self) -> None:
        self.speech_resumed()
        self._turn = self.line.turn
        self._heard[:] = b"".join(self._before)
        self._partial, self._part_at = Partial(), 0

    def heard(self, pcm: bytes, speaking: bool) -> None:
        if not (speaking and self._turn):
            self._before.append(pcm)
        elif len(self._heard) < _LONGEST_BYTES:
            self._heard += pcm
            due = len(self._heard) - self._part_at >= _PART_BYTES
            if due and (self._listening is None or self._listening.done()):
                self._listen(bytes(self._heard))

    def speech_stopped(self) -> None:
        self._turn = ""
        self._heard.clear()
        if self._listening is not None and not self._pause:
            self._listening.cancel()

    def _listen(self, pcm: bytes) -> None:
        """Has ears that nobody waits for hear the turn so far."""
        self._part_at, self._listening_at = len(self._heard), now()
        self._listening = background(self._hear_part(pcm, self._turn, self._partial))

    async def _hear_part(self, pcm: bytes, turn: str, partial: Partial) -> str:
        text = await self._engine.transcribe(pcm, VOICE_RATE_HZ, draft=True)
        if turn == self._turn and (delta := partial.push(text)):
            self.line.transcribing(turn, delta)
        return text

    # --- an answer before it is asked for

    def speech_paused(self, ms: int, items: Sequence[Item]) -> None:
        """Listens to what has been said, and then begins the answer to it."""
        if ms < _ANSWERS_MS:
            self._read_ahead(self._settings, items[:-1])
            if self._listening is None or self._listening.done():
                self._listen(items[-1].pcm)
                self._pause = True
            return
        heard = self._listening if self._pause else None
        self._drop()
        text = background(self._understood(items[-1].pcm, heard))
        stages = Stages(now() - ms / 1000)
        stages.began("ears", None if heard is None else self._listening_at)
        asked, settings = list(items), self._settings
        draft = Draft(lambda draft: self._make(draft, settings, asked, text, stages))
        self._early = _Early(_names(items), settings, text, stages, draft)

    def speech_resumed(self) -> None:
        """Throws that answer away; ears that are at it finish what they hear, for the partial transcript."""
        self._pause = False
        self._drop()

    def _drop(self) -> None:
        early, self._early = self._early, None
        if early is not None:
            early.draft.drop()
            early.text.cancel()

    async def _understood(self, pcm: bytes, heard: asyncio.Future[str] | None) -> str:
        """The words, as they were ``heard`` if that has come to something."""
        if heard is not None:
            with contextlib.suppress(EngineError):
                return await asyncio.shield(heard)
        return await self._engine.transcribe(pcm, VOICE_RATE_HZ)

    def committed(self, item: Item) -> None:
        if self._early is not None and self._early.items[-1][0] != item.id:
            self._drop()
        if item.pcm and not item.text:
            self._text_of(item)

    def _text_of(self, item: Item) -> asyncio.Future[str]:
        if item.id not in self._texts:
            early = self._early.text if self._early and self._early.items[-1][0] == item.id else None
            self._texts[item.id] = background(self._transcribe(item, early))
            while len(self._texts) > _MOST_TURNS:
                self._texts.pop(next(iter(self._texts))).cancel()
        return self._texts[item.id]

    async def _transcribe(self, item: Item, early: asyncio.Future[str] | None) -> str:
        text = await self._understood(item.pcm, early)
        self.line.transcribed(item.id, text)
        return text

    # --- the answer

    async def _answer(self, response: Response) -> None:
        draft, stages = self._made(response)
        try:
            await draft.pour(response)
        except EngineError as error:
            raise Failure(str(error)) from None
        self._told = stages.event(response.id)
        response.done()
        self._read_ahead(response.settings, [*response.items, Item(id="", role="assistant", text=draft.said)])

    def _read_ahead(self, settings: Settings, items: Sequence[Item]) -> None:
        """Has the mind read what was said so far while it has nothing else to do, so that the words of the next turn
        are all that is left then. An answer by rules has said what it has not read."""
        messages = self._messages(settings, items)
        if messages != self._ahead:
            self._read_no_more()
            self._ahead = messages
            self._reading = background(self._engine.read(_CALL, messages))

    def _read_no_more(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    def event(self, event: dict[str, Any]) -> None:
        """Tells a client that asks what the last answer was made of."""
        if event.get("type") == ASKED:
            if self._told:
                self.line.emit(self._told)
            return
        message = f"There is no event type '{str(event.get('type'))[:64]}'."
        what = {"type": "invalid_request_error", "code": "invalid_value", "message": message}
        self.line.emit({"type": "error", "error": {**what, "param": "type", "event_id": event.get("event_id")}})

    def _made(self, response: Response) -> tuple[Draft, Stages]:
        """The draft for that response, which may have been begun."""
        early, self._early = self._early, None
        items, settings = response.items, response.settings
        if early is not None:
            if early.items == _names(items) and early.settings == settings and not early.draft.failed:
                return early.draft, early.stages
            early.draft.drop()
        last = items[-1] if items else Item(id="")
        spoken = last.role == "user" and last.pcm and not last.text
        text, stages = self._text_of(last) if spoken else None, Stages(now())
        return Draft(lambda draft: self._make(draft, settings, items, text, stages)), stages

    async def _make(
        self,
        draft: Draft,
        settings: Settings,
        items: Sequence[Item],
        text: asyncio.Future[str] | None,
        stages: Stages,
    ) -> None:
        """Answers the last of ``items``, whose words are ``text``, if they are not there."""
        last = items[-1] if items else Item(id="")
        if text is not None:
            stages.began("ears")
        heard = last.text if text is None else await asyncio.shield(text)
        stages.gave("ears", heard)
        say = partial(self._say, draft, settings, stages)
        stages.began("mind")
        if last.kind == "function_call_output":
            await say(f"The answer is: {heard.strip() or 'nothing'}.")
        elif call := tool_call(heard, settings.tools) if settings.tool_choice != "none" else None:
            draft.call(*call)
        elif last.images:
            await say(seen(last.images))
        elif not any(map(str.isalnum, heard)):
            await say(NO_WORDS)
        elif (known := fact(heard, datetime.now().astimezone(), _ABOUT)) is not None:
            await say(known)
        else:
            await self._think(say, settings, [*self._messages(settings, items[:-1]), _message("user", heard)])

    async def _think(self, say: Say, settings: Settings, messages: list[Message]) -> None:
        asked = settings.more.get("max_output_tokens")  # a number, or "inf"
        most = min(asked, _MOST_TOKENS) if isinstance(asked, int) else _MOST_TOKENS
        self._read_no_more()
        cutter, whole = Sentences(first_clause=True, first_words=FIRST_WORDS), False
        async with aclosing(self._engine.answer(_CALL, messages, most_tokens=most)) as pieces:
            async for piece in pieces:
                for sentence in cutter.push(piece):
                    await say(sentence)
                    whole = whole or _WHOLE.match(sentence) is not None
        rest = cutter.rest()
        last = _WHOLE.match(rest)
        if last is not None or not whole:  # else the limit has cut it off: better not begun
            await say(rest if last is None else last[0])

    async def _say(self, draft: Draft, settings: Settings, stages: Stages, text: str) -> None:
        stages.gave("mind", text)
        if settings.modality == "text":
            draft.text(text)
        elif text.strip():
            draft.transcript(text)
            stages.began("voice")
            async with aclosing(self._engine.speak(text.strip())) as speech:
                async for pcm in speech:
                    draft.audio(pcm)
                    stages.gave("voice", text)

    def _messages(self, settings: Settings, items: Sequence[Item]) -> list[Message]:
        """The conversation as the model reads it. It changes at its end alone, for what has changed is read again."""
        said = [(item, item.text or self._known(item.id)) for item in items if item.kind == "message"]
        found = [_message("user" if item.role == "user" else "assistant", text) for item, text in said if text]
        left_out = max(0, len(found) - _MESSAGES + _AT_ONCE) // _AT_ONCE * _AT_ONCE
        return [_message("system", settings.instructions or _INSTRUCTIONS), *found[left_out:]]

    def _known(self, item: str) -> str:
        text = self._texts.get(item)
        return text.result() if text and text.done() and not text.cancelled() and not text.exception() else ""

    # --- its life

    def configured(self, settings: Settings) -> None:
        known, self._settings = self._settings, settings
        if self._getting_ready is None or known.instructions != settings.instructions:
            if self._getting_ready is not None:
                self._getting_ready.cancel()
            self._getting_ready = background(self._get_ready(settings))

    async def _get_ready(self, settings: Settings) -> None:
        """Has the engine there, which reads the instructions: long ones take it seconds."""
        self._ahead = self._messages(settings, ())
        messages = [*self._ahead, _message("user", "Hello.")]
        with contextlib.suppress(EngineError):  # whoever answers tells of it
            async with aclosing(self._engine.answer(_CALL, messages, most_tokens=1)) as pieces:
                async for _ in pieces:
                    pass

    async def warm(self, settings: Settings, items: Sequence[Item]) -> None:  # type: ignore[override]
        """Waits until what was said and not yet understood is text, and the instructions are read."""
        known = [text for text in self._texts.values() if text is not None]
        ready = [self._getting_ready] if self._getting_ready is not None else []
        await asyncio.gather(*known, *ready, return_exceptions=True)

    async def close(self) -> None:  # type: ignore[override]
        self._turn = ""
        self.speech_resumed()
        await super().close()
        for task in (*self._texts.values(), self._getting_ready, self._listening, self._reading):
            if task is not None:
                task.cancel()
        self._engine.forget(_CALL)
        await self._engine.close()


def connection(about: config.Engine, under: Callable[[], Span]) -> Engine:
    """The engine, for one call; its requests have spans under that which ``under`` gives."""
    return Client(about, under=under)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}  # type: ignore[typeddict-item]  # one of the three


def _names(items: Sequence[Item]) -> list[tuple[str, str]]:
    """The items, and what of their text would change an answer; a user's may become known meanwhile."""
    return [(item.id, "" if item.role == "user" else item.text) for item in items]
