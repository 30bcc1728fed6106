"""The agent ``offline``: a conversation without network or model. pocketsphinx hears, a few rules think, espeak-ng
speaks. English.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime

from transceiver.agents import Item, Line, Response, Settings
from transceiver.speech.brain import answer, seen, tool_call
from transceiver.speech.ears import Ears
from transceiver.speech.espeak import speak
from transceiver.speech.sentences import Sentences
from transceiver.speech.tasks import Answering

_MOST_TURNS = 128  # whose text is remembered


class Agent(Answering):
    """Calls a function where the request has words of one, and says what came of it."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._ears = Ears()
        self._texts: dict[str, str] = {}

    async def speech_started(self) -> None:  # type: ignore[override]
        await self._ears.start()

    async def warm(self, settings: Settings, items: Sequence[Item]) -> None:  # type: ignore[override]
        await self._ears.start()

    async def close(self) -> None:  # type: ignore[override]
        await super().close()
        await self._ears.close()

    async def _answer(self, response: Response) -> None:
        settings = response.settings
        last = response.items[-1] if response.items else Item(id="")
        if last.kind == "function_call_output":
            text = f"The answer is: {last.text.strip() or 'nothing'}."
        else:
            heard = await self._heard(last)
            call = tool_call(heard, settings.tools) if settings.tool_choice != "none" else None
            if call:
                response.call(*call)
                response.done()
                return
            text = seen(last.images) if last.images else answer(heard, datetime.now().astimezone())
        cutter = Sentences()
        for sentence in (*cutter.push(text), cutter.rest()):
            if settings.modality == "text":
                response.text(sentence)
            elif sentence.strip():
                response.transcript(sentence)
                async with aclosing(speak(sentence, settings.voice)) as speech:
                    async for pcm in speech:
                        response.audio(pcm)
            await asyncio.sleep(0)
        response.done()

    async def _heard(self, item: Item) -> str:
        if item.text or not item.pcm:
            return item.text
        if item.id not in self._texts:
            self._texts[item.id] = text = await self._ears.transcribe(item.pcm)
            self.line.transcribed(item.id, text)
            while len(self._texts) > _MOST_TURNS:
                self._texts.pop(next(iter(self._texts)))
        return self._texts[item.id]
