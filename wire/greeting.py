"""The connecting end's part in agreeing on a version: it says hello, and speaks what the reply allows."""

from __future__ import annotations

from wire.control import Control, encode
from wire.frames import OtherVersionError
from wire.messages import Hello, Message, Refused
from wire.versions import GREETING, OLDEST, Versions, software, spoken

__all__ = ["Greeting", "agreed", "hello"]


class Greeting:
    """The state of a link's greeting: ``version`` is what an edge's process speaks with one transceiver, the oldest
    until a reply is there.

    ``due`` while a hello is to be sent; ``agreed`` when it was answered; ``mute`` says why there is no version that
    both speak.
    """

    def __init__(self, versions: Versions | None = None) -> None:
        self._versions = spoken() if versions is None else versions
        self._number: int | None = None
        self.lost()

    def lost(self) -> None:
        """Begins anew: the link is or was down, and the next peer may be of another release."""
        self.version = OLDEST
        self.due = True
        self.agreed = False
        self.mute = ""

    def hello(self, number: int) -> bytes:
        """The message that goes first on a link that has come up. Whoever has sent it clears ``due``. Its ``number`` is
        that of no other request."""
        self._number = number
        return encode(hello(self._versions), number, OLDEST)

    def take(self, reply: Control[Message]) -> bool:
        """Whether this is the reply to the last hello. Raises OtherVersionError where there is no version in common: a
        peer that refuses is older than that message."""
        message = reply.message
        if reply.request is None or reply.request != self._number or not isinstance(message, Hello | Refused):
            return False
        try:
            self.version = agreed(self._versions, message if isinstance(message, Hello) else _OLDER)
        except OtherVersionError as e:
            self.mute = str(e)
            raise
        self.agreed = True
        return True


_OLDER = Hello(versions=(GREETING, GREETING), software="an older release")


def hello(versions: Versions) -> Hello:
    """The message by which this side says, and replies, that it speaks ``versions``."""
    return Hello(versions=versions, software=software())


def agreed(versions: Versions, said: Hello) -> int:
    """The version to speak with a peer that says that. Raises OtherVersionError where there is none."""
    common = versions.common(said.versions)
    if common is None:
        theirs = f"{said.software or 'the other end'} speaks wire version {Versions(*said.versions)}"
        raise OtherVersionError(f"{theirs}, this side {versions}: upgrade the older one")
    return common
