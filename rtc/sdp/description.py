"""A session description as text (RFC 8866): the session's own attributes, and its media sections with theirs.

Nothing here knows what an attribute means. A line that is odd is passed over, because most of what clients send
concerns somebody else; only an m= line has to be right, because the answer repeats each. Text is bounded before it is
read, and reading takes time in proportion to its length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["MOST_CHARACTERS", "Attributes", "Description", "Malformed", "Media", "number", "parse", "quoted"]

MOST_CHARACTERS = 64 * 1024
_MOST_LINES = 4096
_MOST_SECTIONS = 128
_MOST_OF_A_NAME = 256  # lines of one attribute in one section; what comes after is passed over
_LONGEST_LINE = 4096
_MOST_QUOTED = 80
# media, port and how many, protocol, formats: RFC 8866 section 5.14, with blanks as they come.
_MEDIA = re.compile(r"([!-~]+)[ \t]+([0-9]{1,5})(?:/[0-9]+)?[ \t]+([!-~]+)[ \t]+([!-~][ \t!-~]*)")
_DIRECTIONS = frozenset({"sendrecv", "sendonly", "recvonly", "inactive"})


class Malformed(ValueError):
    """Text that is no session description. The message names the line and the reason, for its author."""


class Attributes:
    """The a= lines of the session or of a section: values by name, blanks around them removed, as they came.

    The four directions (RFC 8866 section 6.7) are values of one attribute, "direction"."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}

    def add(self, line: str) -> None:
        """Adds what follows "a=" in a line."""
        name, _, value = line.partition(":")
        if name in _DIRECTIONS:
            name, value = "direction", name
        values = self._values.get(name)
        if values is None:
            self._values[name] = [value.strip()]
        elif len(values) < _MOST_OF_A_NAME:
            values.append(value.strip())

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def every(self, name: str) -> Sequence[str]:
        """All values of ``name``."""
        return self._values.get(name, ())

    def first(self, name: str) -> str | None:
        """The first value of ``name`` that is not empty."""
        return next(filter(None, self.every(name)), None)

    def last(self, name: str) -> str | None:
        """The last value of ``name``."""
        values = self._values.get(name)
        return values[-1] if values else None


class Media(Attributes):
    """A media section: the fields of its m= line, and its attributes. Of several ports (``9/2``) the first is kept."""

    __slots__ = ("formats", "kind", "line", "port", "protocol")

    def __init__(self, line: str) -> None:
        super().__init__()
        fields = _MEDIA.fullmatch(line)
        if fields is None:
            raise Malformed(f"m={quoted(line)} is not a media line: media, port, protocol and formats")
        self.line = line
        self.kind, self.protocol = fields[1], fields[3]
        self.port = int(fields[2])
        self.formats = tuple(fields[4].split())
        if self.port >= 1 << 16:
            raise Malformed(f"m={quoted(line)}: {self.port} is not a port")


class Description:
    """The session's attributes and its sections, in their order."""

    __slots__ = ("media", "session")

    def __init__(self) -> None:
        self.session = Attributes()
        self.media: list[Media] = []


def parse(text: str) -> Description:
    """The description in ``text``, whose lines may end as they like. Raises Malformed."""
    if len(text) > MOST_CHARACTERS:
        raise Malformed(f"the SDP has {len(text)} characters: {MOST_CHARACTERS} are taken")
    # A byte order mark, and the end of a string in C.
    text = text.strip("\ufeff\0 \t\r\n").replace("\r\n", "\n").replace("\r", "\n")
    if text.count("\n") >= _MOST_LINES:
        raise Malformed(f"the SDP has {text.count(chr(10)) + 1} lines: {_MOST_LINES} are taken")
    lines = text.split("\n")
    if lines[0].rstrip() != "v=0":
        raise Malformed("the body is not SDP: it does not begin with v=0")
    description = Description()
    level = description.session
    for line in lines:
        line = line.strip(" \t")
        if line.startswith("a="):
            if len(line) <= _LONGEST_LINE:
                level.add(line[2:])
        elif line.startswith("m="):
            if len(line) > _LONGEST_LINE:
                raise Malformed(f"{quoted(line)} has {len(line)} characters: {_LONGEST_LINE} are taken")
            if len(description.media) == _MOST_SECTIONS:
                raise Malformed(f"there are more than {_MOST_SECTIONS} media sections (m=)")
            level = Media(line[2:])
            description.media.append(level)
    return description


def number(text: str, below: int) -> int | None:
    """The decimal number in ``text``, or None unless it is one and less than ``below``."""
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        return None
    value = int(text)
    return value if value < below else None


def quoted(line: str) -> str:
    """``line`` in the form that an error can repeat: on one line, and not too long."""
    shown = line if len(line) <= _MOST_QUOTED else line[:_MOST_QUOTED] + "..."
    return "".join(c if c.isprintable() else "?" for c in shown)
