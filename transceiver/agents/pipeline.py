"""The agent ``pipeline``: it hears, thinks and speaks by three services with OpenAI's HTTP API: transcription, chat and
speech.

The services are those of ``[agents.pipeline]``. Each sentence is spoken as soon as it is written, while the next is
still being thought of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from runtime.tracing.spans import Span
from transceiver.agents import Item, Line, Response, Settings
from transceiver.speech.sentences import Sentences
from transceiver.speech.services import Services, Words
from transceiver.speech.tasks import Answering, Failure

_MOST_SENTENCES = 16  # written and not yet spoken
_MOST_TURNS = 128  # whose transcription is remembered


class Agent(Answering):
    """One call's client of the three services."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._services: Services | None = None
        self._texts: dict[str, asyncio.Task[str]] = {}

    def committed(self, item: Item) -> None:
        if item.pcm and not item.text:
            self._text_of(item)

    async def warm(self, settings: Settings, items: Sequence[Item]) -> None:  # type: ignore[override]
        """Waits until what was said and not yet understood is text: the first answer needs it."""
        self._reach()
        await asyncio.gather(*self._texts.values(), return_exceptions=True)

    async def close(self) -> None:  # type: ignore[override]
        await super().close()
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

    def _text_of(self, item: Item) -> asyncio.Task[str]:
        task = self._texts.get(item.id)
        if task is None:
            task = self._texts[item.id] = asyncio.get_running_loop().create_task(self._transcribe(item))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())  # whoever answers tells of it
            while len(self._texts) > _MOST_TURNS:
                self._texts.pop(next(iter(self._texts))).cancel()
        return task

    async def _transcribe(self, item: Item) -> str:
        text = await self._reach().transcribe(item.pcm, self.line.span)
        self.line.transcribed(item.id, text)
        return text

    async def _answer(self, response: Response) -> None:
        settings, services = response.settings, self._reach()
        request: dict[str, Any] = {"messages": await self._messages(settings.instructions, response.items)}
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
        written = asyncio.get_running_loop().create_task(_write(services, request, words, sentences, response.span))
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
    services: Services, request: dict[str, Any], words: Words, sentences: asyncio.Queue[str], span: Span
) -> None:
    """Puts each sentence of the answer into the queue, and nothing after the last."""
    cutter = Sentences()
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


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool of the Realtime protocol in the form of chat completions."""
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _choice(choice: Any) -> Any:
    if isinstance(choice, dict) and "name" in choice:
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice
