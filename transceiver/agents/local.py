"""The agent ``local``: a conversation by small models on this machine, with no network. Whisper hears, rules and then
SmolLM2 think, and hibari speaks (``transceiver.engine``). English.

It works while nobody knows yet whether the turn has ended: after 200 ms of silence it transcribes, thinks and begins to
speak into a draft, which becomes the answer if the turn ends there, and is thrown away if the caller speaks on. The
caller's words are told while they are spoken.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from runtime import config
from runtime.tracing.spans import Span
from transceiver.agents import Item, Line, Response, Settings
from transceiver.engine import VOICE_RATE_HZ, Engine, EngineError, Message, weights
from transceiver.engine.client import Client
from transceiver.speech.brain import NO_WORDS, fact, seen, tool_call
from transceiver.speech.draft import Draft
from transceiver.speech.partial import Partial
from transceiver.speech.sentences import Sentences
from transceiver.speech.tasks import Answering, Failure, background

# Its wording matters: with "friendly" or "telephone" in it the model answered half of all questions in French.
_INSTRUCTIONS = "You are a helpful assistant. Answer in English, in one short sentence."
_ABOUT = "I am the agent local. Three small models on this machine hear you, think, and speak."
_CALL = 0  # the number of the only call on this agent's connection
_MOST_TOKENS = 28  # of an answer: half a second of a core, and five seconds to listen to
_MOST_TURNS = 128  # whose text is remembered
_MESSAGES, _AT_ONCE = 48, 32  # of the history: the oldest are left out seldom, and many at once
_BEFORE = 19  # frames of 20 ms before the beginning of speech was noticed
_PART_BYTES = 2 * VOICE_RATE_HZ * 3 // 2  # of new speech make it worth listening again
_LONGEST_BYTES = 2 * VOICE_RATE_HZ * 25  # of a turn whose words are told while it is spoken
_WHOLE = re.compile(r".*[.!?…][\"')\]]*", re.DOTALL)


@dataclass(slots=True)
class _Early:
    """The answer to a turn that may have ended: ``items`` names the conversation that it answers."""

    items: list[tuple[str, str]]
    settings: Settings
    text: asyncio.Future[str]
    draft: Draft


class Agent(Answering):
    """One call's use of the engine."""

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
        self._listening: asyncio.Future[None] | None = None

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
                self._part_at = len(self._heard)
                self._listening = background(self._tell_part(bytes(self._heard), self._turn, self._partial))

    def speech_stopped(self) -> None:
        self._turn = ""
        self._heard.clear()
        if self._listening is not None:
            self._listening.cancel()

    async def _tell_part(self, pcm: bytes, turn: str, partial: Partial) -> None:
        with contextlib.suppress(EngineError):  # nobody waits for it
            text = await self._engine.transcribe(pcm, VOICE_RATE_HZ, draft=True)
            self._tell(turn, partial, text)

    def _tell(self, turn: str, partial: Partial, text: str) -> None:
        if turn == self._turn and (delta := partial.push(text)):
            self.line.transcribing(turn, delta)

    # --- an answer before it is asked for

    def speech_paused(self, ms: int, items: Sequence[Item]) -> None:
        """Begins the answer to what has been said."""
        self.speech_resumed()
        if self._listening is not None:
            self._listening.cancel()  # this is heard instead
        text = background(self._engine.transcribe(items[-1].pcm, VOICE_RATE_HZ))
        asked, settings, now = list(items), self._settings, _names(items)
        self._early = _Early(now, settings, text, Draft(lambda draft: self._make(draft, settings, asked, text)))

    def speech_resumed(self) -> None:
        """Throws that answer away; the words that it was for are of use to the partial transcript."""
        early, self._early = self._early, None
        if early is None:
            return
        early.draft.drop()
        if early.text.done() and not early.text.cancelled() and early.text.exception() is None:
            self._tell(self._turn, self._partial, early.text.result())
        early.text.cancel()

    def committed(self, item: Item) -> None:
        if self._early is not None and self._early.items[-1][0] != item.id:
            self.speech_resumed()
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
        try:
            text = await (early or self._engine.transcribe(item.pcm, VOICE_RATE_HZ))
        except EngineError:
            if early is None:
                raise
            text = await self._engine.transcribe(item.pcm, VOICE_RATE_HZ)
        self.line.transcribed(item.id, text)
        return text

    # --- the answer

    async def _answer(self, response: Response) -> None:
        draft = self._made(response)
        try:
            await draft.pour(response)
        except EngineError as error:
            raise Failure(str(error)) from None
        response.done()

    def _made(self, response: Response) -> Draft:
        """The draft for that response, which may have been begun."""
        early, self._early = self._early, None
        items, settings = response.items, response.settings
        if early is not None:
            if early.items == _names(items) and early.settings == settings and not early.draft.failed:
                return early.draft
            early.draft.drop()
        last = items[-1] if items else Item(id="")
        spoken = last.role == "user" and last.pcm and not last.text
        text = self._text_of(last) if spoken else None
        return Draft(lambda draft: self._make(draft, settings, items, text))

    async def _make(
        self, draft: Draft, settings: Settings, items: Sequence[Item], text: asyncio.Future[str] | None
    ) -> None:
        """Answers the last of ``items``, whose words are ``text``, if they are not there."""
        last = items[-1] if items else Item(id="")
        heard = last.text if text is None else await asyncio.shield(text)
        if last.kind == "function_call_output":
            await self._say(draft, settings, f"The answer is: {heard.strip() or 'nothing'}.")
        elif call := tool_call(heard, settings.tools) if settings.tool_choice != "none" else None:
            draft.call(*call)
        elif last.images:
            await self._say(draft, settings, seen(last.images))
        elif not any(map(str.isalnum, heard)):
            await self._say(draft, settings, NO_WORDS)
        elif (known := fact(heard, datetime.now().astimezone(), _ABOUT)) is not None:
            await self._say(draft, settings, known)
        else:
            await self._think(draft, settings, [*self._messages(settings, items[:-1]), _message("user", heard)])

    async def _think(self, draft: Draft, settings: Settings, messages: list[Message]) -> None:
        asked = settings.more.get("max_output_tokens")  # a number, or "inf"
        most = min(asked, _MOST_TOKENS) if isinstance(asked, int) else _MOST_TOKENS
        cutter, whole = Sentences(first_clause=True), False
        async with aclosing(self._engine.answer(_CALL, messages, most_tokens=most)) as pieces:
            async for piece in pieces:
                for sentence in cutter.push(piece):
                    await self._say(draft, settings, sentence)
                    whole = whole or _WHOLE.match(sentence) is not None
        rest = cutter.rest()
        last = _WHOLE.match(rest)
        if last is not None or not whole:  # else the limit has cut it off: better not begun
            await self._say(draft, settings, rest if last is None else last[0])

    async def _say(self, draft: Draft, settings: Settings, text: str) -> None:
        if settings.modality == "text":
            draft.text(text)
        elif text.strip():
            draft.transcript(text)
            async with aclosing(self._engine.speak(text.strip())) as speech:
                async for pcm in speech:
                    draft.audio(pcm)

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
        messages = [*self._messages(settings, ()), _message("user", "Hello.")]
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
        for task in (*self._texts.values(), self._getting_ready, self._listening):
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
