"""Answers by rules, for English: facts that a rule knows better than a small model, and enough besides to try a whole
conversation with the agent ``offline``. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

__all__ = ["NO_WORDS", "answer", "fact", "seen", "tool_call"]

NO_WORDS = "I did not hear any words. Please say that again."

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_NUMBERS = {**{word: i for i, word in enumerate(_UNITS)}, **_TENS, "hundred": 100}
_SIGNS = {"plus": "+", "minus": "-", "times": "*", "+": "+", "-": "-", "*": "*", "/": "/", "x": "*", "divided": "/"}
_LONGEST_QUESTION = 9  # words, of one for the time
_LONGEST_COURTESY = 4  # where it is all that was said
_STORY = (
    "Once upon a time a small packet set out across a very large network. "
    "At every crossing it asked for the way, and at every crossing somebody knew it. "
    "A storm came, and three of its brothers were lost. "
    "But each had told the next what it carried, and so nothing was forgotten. "
    "In the end it came to a house with only one door, and was known there at once. "
    "And if nobody has dropped it, it is still being played today."
)
# Words that say nothing about which function is meant.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """a an the is are was be to of in on at for and or with by from this that it me my you your i we please what
        which how can could would do does get give tell will should when use returns return call function""",
    )
)


def fact(text: str, now: datetime, about: str) -> str | None:
    """The answer to a question for a sum, a spelling, the time, the date, a story, or who answers, which ``about``
    tells, and to a courtesy; None where ``text`` is none of these."""
    words = _words(text)
    if words[:3] == ["who", "are", "you"] or "your name" in " ".join(words):
        return about
    if (found := _reckoned(words)) is not None:
        return found
    if len(words) <= _LONGEST_COURTESY and (found := _courtesy(words)) is not None:
        return found
    if "story" in words and "tell" in words:
        return _STORY
    asks = {"what", "what's", "which", "tell"} & set(words)
    if not asks or len(words) > _LONGEST_QUESTION:
        return None
    if "time" in words:
        return _time(now)
    return _date(now) if {"date", "day"} & set(words) else None


def answer(text: str, now: datetime) -> str:
    """The answer to ``text``, in sentences."""
    words = _words(text)
    if not words:
        return NO_WORDS
    if (found := _reckoned(words)) is not None:
        return found
    if "story" in words:
        return _STORY
    if "time" in words:
        return _time(now)
    if "date" in words or "day" in words:
        return _date(now)
    if (found := _courtesy(words)) is not None:
        return found
    if "weather" in words or "rain" in words:
        return "I have no window. Give me a function that knows the weather, and I will call it."
    if words[:3] in (["who", "are", "you"], ["what", "can", "you"]) or "name" in words:
        return "I am the agent offline. I tell the time and stories, count, spell, and call your functions."
    if words[:3] == ["how", "are", "you"]:
        return "Every packet in its place, thank you. And you?"
    return f"You said: {text.strip().rstrip('.')}."


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+|\d+|[-+*/]", text.lower())


def _time(now: datetime) -> str:
    return f"It is {now:%H:%M}."


def _date(now: datetime) -> str:
    return f"Today is {now:%A}, the {now.day} of {now:%B}."


def _courtesy(words: list[str]) -> str | None:
    if {"hello", "hi", "hey", "morning", "evening"} & set(words):
        return "Hello! What can I do for you?"
    if {"bye", "goodbye"} & set(words):
        return "Goodbye! It was nice talking to you."
    if {"thanks", "thank"} & set(words):
        return "You are welcome."
    return None


def _reckoned(words: list[str]) -> str | None:
    if (result := _calculated(words)) is not None:
        return result
    if "spell" in words:
        spelt = words[words.index("spell") + 1 :]
        spelt = spelt[1:] if spelt[:1] in (["the"], ["word"]) else spelt
        if spelt:
            return f"{spelt[-1]} is spelt {', '.join(spelt[-1].upper())}."
    return None


def seen(images: Sequence[str]) -> str:
    """A sentence about pictures, given as data URLs, from an agent without eyes: how large each is."""
    sizes = (round(len(image.partition(",")[2]) * 3 / 4 / 1000) for image in images)
    return " ".join(f"I see a picture of {size} kilobytes." for size in sizes)


def tool_call(text: str, tools: Sequence[dict[str, Any]]) -> tuple[str, str] | None:
    """(name, arguments as JSON) of the function whose name and description have most words of ``text``, or None."""
    words = set(re.findall(r"[a-z]+|\d+", text.lower())) - _COMMON
    best, most = None, 0
    for tool in tools:
        name, about = str(tool.get("name") or ""), str(tool.get("description") or "")
        its = set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", f"{name} {about}").lower())) - _COMMON
        if name and len(words & its) > most:
            best, most = tool, len(words & its)
    if best is None:
        return None
    return str(best["name"]), json.dumps(_arguments(text, best.get("parameters")))


def _arguments(text: str, schema: Any) -> dict[str, Any]:
    """A value for each required argument: the numbers of ``text``, what stands after a preposition, or all of it."""
    schema = schema if isinstance(schema, dict) else {}
    properties, required = schema.get("properties"), schema.get("required")
    properties = properties if isinstance(properties, dict) else {}
    numbers = [n for word in re.findall(r"[a-z]+|\d+", text.lower()) if (n := _number([word])) is not None]
    place = re.search(r"\b(?:in|for|at|to|of|about|called|named)\s+(.+?)[.?!]*$", text)
    found: dict[str, Any] = {}
    for name in required if isinstance(required, list) else ():
        about = properties.get(name)
        about = about if isinstance(about, dict) else {}
        if isinstance(choices := about.get("enum"), list) and choices:
            found[str(name)] = next((c for c in choices if str(c).lower() in text.lower()), choices[0])
        elif about.get("type") in ("integer", "number"):
            found[str(name)] = numbers.pop(0) if numbers else 0
        elif about.get("type") == "boolean":
            found[str(name)] = True
        else:
            found[str(name)] = place[1] if place else text.strip()
    return found


def _calculated(words: list[str]) -> str | None:
    at = next((i for i, word in enumerate(words) if word in _SIGNS and 0 < i < len(words) - 1), None)
    if at is None:
        return None
    left, right = _last_number(words[:at]), _number([word for word in words[at + 1 :] if word != "by"])
    if left is None or right is None:
        return None
    sign = _SIGNS[words[at]]
    if sign == "/" and right == 0:
        return "Nobody can divide by zero."
    result = {"+": left + right, "-": left - right, "*": left * right}.get(sign, left / right if right else 0)
    return f"That is {result:g}."


def _last_number(words: list[str]) -> int | None:
    """The number that ``words`` end with."""
    start = len(words)
    while start and (words[start - 1] in _NUMBERS or words[start - 1].isdecimal()):
        start -= 1
    return _number(words[start:])


def _number(words: list[str]) -> int | None:
    """The number that ``words`` begin with, up to 999 in words."""
    total = None
    for word in words:
        if word.isdecimal() and len(word) < 10:
            return int(word) if total is None else total
        if word not in _NUMBERS:
            break
        value = _NUMBERS[word]
        total = (total or 1) * 100 if value == 100 else (total or 0) + value
    return total
