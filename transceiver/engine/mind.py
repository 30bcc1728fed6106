"""The mind: SmolLM2-135M-Instruct by llama.cpp, whose server is in this process (``xllamacpp``).

It keeps the conversation of each call in a slot of its own, so that only what is new is read. On one thread: two stall
as soon as anything else wants a core.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from transceiver.engine import EngineError, Message

__all__ = ["Memory", "Mind", "Slots", "fitted"]

_CONTEXT = 1024  # tokens of one slot: they are read again, at 130 to 300 a second, when a call comes back to another
_MOST_TOKENS = 512
_MOST_CHARACTERS = 2400  # of the system's message, six hundred tokens of English; of another message half as many
_TRIES = 8
_HTTP_THREADS = 2


class Slots:
    """The slots, each of one call at a time; the one that was used longest ago goes to another call. Any thread may
    ask."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._of: dict[Hashable, tuple[int, Memory]] = {}  # the one used longest ago comes first
        self._lock = threading.Lock()

    def take(self, call: Hashable) -> tuple[int, Memory]:
        """The slot of ``call``, and what is known of it."""
        with self._lock:
            if (found := self._of.pop(call, None)) is None:
                found = (self._free.pop() if self._free else self._of.pop(next(iter(self._of)))[0], Memory())
            self._of[call] = found
            return found

    def forget(self, call: Hashable) -> None:
        """Frees the slot of ``call``, if it has one."""
        with self._lock:
            if (found := self._of.pop(call, None)) is not None:
                self._free.append(found[0])


class Memory:
    """How a call's messages are made to fit. It changes seldom, and much: else all would be read again each turn."""

    def __init__(self) -> None:
        self.dropped = 0
        """The oldest messages, after the system's, that are left out."""
        self.most_characters = _MOST_CHARACTERS

    def shrink(self, messages: int) -> None:
        """Takes note that ``messages`` were too many, or too long."""
        kept = messages - self.dropped
        if kept > 1:
            self.dropped += kept * 3 // 4
        else:
            self.most_characters //= 2


def fitted(messages: Sequence[Message], memory: Memory) -> list[Message]:
    """The messages without those that ``memory`` leaves out, and none longer than it allows."""
    system = [message for message in messages[:1] if message["role"] == "system"]
    rest = list(messages[len(system) :])
    if memory.dropped >= len(rest):
        memory.dropped = 0  # another conversation
    kept = rest[memory.dropped :]
    return [
        {"role": message["role"], "content": message["content"][: memory.most_characters // most]}
        for most, these in ((1, system), (2, kept))
        for message in these
    ]


class Mind:
    """The model, loaded from the file ``model``, with ``slots`` slots. As many threads may use it at a time. ``socket``
    is a path at which llama.cpp listens, whether that is wanted or not: nobody knows the key."""

    def __init__(self, model: Path, slots: int, socket: Path, *, cuda: bool = False) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_ctx, params.n_parallel = slots * _CONTEXT, slots
        # Of one cache for all, or with what was read kept aside, each turn of another call costs seconds.
        params.kv_unified = params.cache_idle_slots = False
        params.cache_ram_mib = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.n_gpu_layers = 999 if cuda else 0
        params.warmup = params.ui = params.endpoint_slots = False
        params.verbosity = 0
        socket.unlink(missing_ok=True)
        params.hostnames, params.api_keys = [str(socket)], [secrets.token_hex(32)]
        params.n_threads_http = _HTTP_THREADS
        self._server: Any = xllamacpp.Server(params)
        self.slots = Slots(slots)

    def answer(
        self, call: Hashable, messages: Sequence[Message], most_tokens: int, piece: Callable[[str], bool]
    ) -> None:
        """Gives the answer to ``piece``, bit by bit, until it returns True. Raises EngineError."""
        slot, memory = self.slots.take(call)
        rest = sum(message["role"] != "system" or i > 0 for i, message in enumerate(messages))
        if not rest:
            raise EngineError("there is nothing to answer")
        for _ in range(_TRIES):
            asked = {
                "messages": fitted(messages, memory),
                "max_tokens": max(1, min(most_tokens, _MOST_TOKENS)),
                "temperature": 0,
                "stream": True,
                "cache_prompt": True,
                "id_slot": slot,
            }
            if not self._asked(asked, piece):
                return
            memory.shrink(rest)
        raise EngineError("the conversation is too long for this model")

    def read(self, call: Hashable, messages: Sequence[Message]) -> None:
        """Reads what comes before the words of the user's next message. Raises EngineError."""
        self.answer(call, [*messages, {"role": "user", "content": ""}], 1, lambda _: False)

    def _asked(self, asked: dict[str, Any], piece: Callable[[str], bool]) -> bool:
        """Whether it was too long. Raises EngineError."""
        error: dict[str, Any] | None = None

        def came(text: str) -> bool:
            nonlocal error
            event = json.loads(text)
            if error := event.get("error"):
                return True
            choices = event.get("choices") or [{}]
            return piece(choices[0].get("delta", {}).get("content") or "")

        try:
            self._server.handle_chat_completions(json.dumps(asked), came)
        except ValueError as e:
            raise EngineError(f"the language model refused: {str(e)[:200]}") from None
        if error is None:
            return False
        if error.get("type") != "exceed_context_size_error":
            raise EngineError(f"the language model failed: {str(error.get('message'))[:200]}")
        return True
