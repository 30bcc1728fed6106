"""The agent ``pipeline``: it hears, thinks and speaks by three services with OpenAI's HTTP API: transcription, chat and
speech.

The services are those of ``[agents.pipeline]``. Each sentence is spoken as soon as it is written, while the next is
still being thought of. What was said is transcribed as soon as the caller pauses; it is thrown away if the caller
speaks on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from runtime.config import Pipeline
from runtime.tracing.spans import Span
from transceiver.agents import Item, Line, Response, Settings
from transceiver.speech.sentences import FIRST_WORDS, Sentences
from transceiver.speech.services import Services, Words
from transceiver.speech.tasks import Answering, Failure, background

_MOST_SENTENCES = 16  # written and not yet spoken
_MOST_TURNS = 128  # whose transcription is remembered


class Agent(Answering):
    """One call's client of the three services."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._services: Services | None = None
        self._texts: dict[str, asyncio.Future[str]] = {}
        self._early: tuple[str, asyncio.Future[str]] | None = None  # the text of a turn that may have ended

    def speech_paused(self, ms: int, items: Sequence[Item]) -> None:
        """Begins to transcribe what has been said."""
        self.speech_resumed()
        if self.config.pipeline.transcribes_early:
            self._early = items[-1].id, background(self._understood(items[-1].pcm))

    def speech_resumed(self) -> None:
        """Throws the transcription away."""
        early, self._early = self._early, None
        if early:
            early[1].cancel()

    def committed(self, item: Item) -> None:
        if item.pcm and not item.text:
            self._text_of(item)

    async def warm(self, settings: Settings, items: Sequence[Item]) -> None:  # type: ignore[override]
        """Waits until what was said and not yet understood is text: the first answer needs it."""
        self._reach()
        await asyncio.gather(*self._texts.values(), return_exceptions=True)

    async def close(self) -> None:  # type: ignore[override]
        await super().close()
        self.speech_resumed()
        for task in self._texts.values():
            task.cancel()
        await asyncio.gather(*self._texts.values(), return_exceptions=True)
        if self._services:
            await self._services.close()

    def _reach(self) -> Services:
        if self._services is None:
            try:
                self._services = Services(self.config.pipeline)
            except OSError as error:
                raise Failure(f"agents.pipeline.key_file: {error.strerror}") from None
        return self._services

    def _text_of(self, item: Item) -> asyncio.Future[str]:
        task = self._texts.get(item.id)
        if task is None:
            if self._early and self._early[0] != item.id:
                self.speech_resumed()
            early, self._early = self._early, None
            task = self._texts[item.id] = background(self._transcribe(item, early[1] if early else None))
            while len(self._texts) > _MOST_TURNS:
                self._texts.pop(next(iter(self._texts))).cancel()
        return task

    async def _transcribe(self, item: Item, early: asyncio.Future[str] | None) -> str:
        try:
            text = await (early or self._understood(item.pcm))
        except Failure:
            if early is None:
                raise
            text = await self._understood(item.pcm)
        self.line.transcribed(item.id, text)
        return text

    async def _understood(self, pcm: bytes) -> str:
        return await self._reach().transcribe(pcm, self.line.span)

    async def _answer(self, response: Response) -> None:
        settings, services = response.settings, self._reach()
        instructions = settings.instructions or self.config.pipeline.instructions
        request: dict[str, Any] = {"messages": await self._messages(instructions, response.items)}
        request |= _limits(self.config.pipeline, settings)
        if settings.tools:
            request["tools"] = [_function(tool) for tool in settings.tools]
            request["tool_choice"] = _choice(settings.tool_choice)
        words = Words()
        if settings.modality == "text":
            async with aclosing(services.chat(request, words, response.span)) as deltas:
                async for delta in deltas:
                    response.text(delta)
        else:
            await self._speak(response, services, request, words)
        for call in words.calls.values():
            if call.name:
                response.call(call.name, call.arguments or "{}", call.id)
        response.done(words.usage)

    async def _speak(self, response: Response, services: Services, request: dict[str, Any], words: Words) -> None:
        sentences: asyncio.Queue[str] = asyncio.Queue(_MOST_SENTENCES)
        first = self.config.pipeline.first_piece
        cutter = Sentences(first_clause=first != "sentence", first_words=FIRST_WORDS if first == "words" else None)
        written = background(_write(services, request, words, cutter, sentences, response.span))
        try:
            while sentence := await sentences.get():
                response.transcript(sentence)
                if not sentence.strip():
                    continue
                spoken = services.speak(sentence.strip(), response.settings.voice, response.span)
                async with aclosing(spoken) as speech:
                    async for pcm in speech:
                        response.audio(pcm)
            await written
        finally:
            written.cancel()
            await asyncio.gather(written, return_exceptions=True)

    async def _messages(self, instructions: str, items: Sequence[Item]) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
        for item in items:
            if item.kind == "function_call":
                function = {"name": item.name, "arguments": item.arguments}
                call = {"id": item.call_id, "type": "function", "function": function}
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            elif item.kind == "function_call_output":
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": item.text})
            else:
                text = item.text
                if item.role == "user" and item.pcm and not text:
                    text = await asyncio.shield(self._text_of(item))
                pictures = [{"type": "image_url", "image_url": {"url": url}} for url in item.images]
                content = [{"type": "text", "text": text}, *pictures] if pictures else text
                messages.append({"role": item.role or "user", "content": content})
        return messages


async def _write(
    services: Services,
    request: dict[str, Any],
    words: Words,
    cutter: Sentences,
    sentences: asyncio.Queue[str],
    span: Span,
) -> None:
    """Puts each sentence of the answer into the queue, and nothing after the last."""
    try:
        async with aclosing(services.chat(request, words, span)) as deltas:
            async for delta in deltas:
                for sentence in cutter.push(delta):
                    await sentences.put(sentence)
        if rest := cutter.rest():
            await sentences.put(rest)
    except Exception:
        await sentences.put("")
        raise
    await sentences.put("")


def _limits(config: Pipeline, settings: Settings) -> dict[str, Any]:
    """What the answer must not exceed: the host's limits, and the session's."""
    asked = settings.more.get("max_output_tokens")  # a number, or "inf"
    limits = [limit for limit in (config.max_tokens, asked) if isinstance(limit, int)]
    found: dict[str, Any] = {"max_tokens": min(limits)} if limits else {}
    return found if config.temperature is None else {**found, "temperature": config.temperature}


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool of the Realtime protocol in the form of chat completions."""
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _choice(choice: Any) -> Any:
    if isinstance(choice, dict) and "name" in choice:
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice
