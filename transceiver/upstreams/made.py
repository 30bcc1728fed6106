"""The items that upstream itself has made over one connection. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from transceiver.agents import Item
from transceiver.speech.words import Words
from transceiver.upstreams.events import CALLED, WORDS

__all__ = ["Made"]

_MOST_MADE = 128  # items of upstream's that we were not told of: those of one response
_MOST_SAID = 1 << 20  # characters of one of them


class Made:
    """What upstream itself has made over one connection, and is not in the conversation's items yet as far as we were
    told. Our ids of these items are not known to whoever makes them: messages are told by their words, function calls
    by the ids that upstream gave them."""

    def __init__(self) -> None:
        self._messages: deque[str] = deque(maxlen=_MOST_MADE)
        self._calls: deque[str] = deque(maxlen=_MOST_MADE)
        self._saying, self._words = "", Words()

    def take(self, event: dict[str, Any]) -> None:
        """Takes one of upstream's events. A message of ours ends where upstream calls a function, or is done."""
        kind, delta = event.get("type"), event.get("delta")
        if kind in WORDS and isinstance(delta, str):
            self._saying = (self._saying + self._words.push(delta))[:_MOST_SAID]
        elif kind in (CALLED, "response.done"):
            self.cut()
            if kind == CALLED and isinstance(event.get("call_id"), str):
                self._calls.append(event["call_id"])

    def cut(self) -> None:
        """Takes note that the message that is being said ends here."""
        if self._saying:
            self._messages.append(self._saying)
        self._saying, self._words = "", Words()

    def has(self, item: Item, *, cut: bool = False) -> bool:
        """Whether upstream made that item; each is asked for once. With ``cut`` it may be the beginning of one."""
        made, name = (self._calls, item.call_id) if item.kind == "function_call" else (self._messages, item.text)
        if item.kind != "function_call" and not _is_answer(item):
            return False
        found = name if name in made else None
        if found is None and cut and item.kind == "message":
            found = next((text for text in made if text.startswith(name)), None)
        if found is None:
            return False
        made.remove(found)
        return True

    def cut_short(self, items: Iterable[Item]) -> bool:
        """Whether one of these is less than upstream said: the rest was not heard."""
        left = list(self._messages)
        for item in filter(_is_answer, items):
            if item.text in left:
                left.remove(item.text)
            elif any(made.startswith(item.text) for made in left):
                return True
        return False


def _is_answer(item: Item) -> bool:
    return item.kind == "message" and item.role == "assistant"
