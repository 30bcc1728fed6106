"""OpenAI's Realtime protocol as an ``EventProtocol``: the door of this folder, by which sessions come in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rtc.vad.detector import Vad
from transceiver.agents import Item, Settings
from transceiver.realtime import fitting, state
from transceiver.realtime.config import Config, ConfigState, InvalidRequest
from transceiver.realtime.conversation import Conversation, ConversationState
from transceiver.realtime.items import item_of, new_id
from transceiver.realtime.judging import Judge
from transceiver.realtime.pictures import Schemes
from transceiver.realtime.reading import check_depth, write
from transceiver.talk.protocol import Partner, Surroundings

__all__ = ["InvalidRequest", "Realtime"]


class Realtime:
    """The protocol of one session of ``model``, which clients know as ``call``. ``session`` is the configuration that
    was asked for when it was placed, and ``locked`` are the names of fields that no client may see or change.
    ``pictures`` are the kinds of URLs that an item may have, and ``vad`` is the detector that finds turns,
    with ``judge`` where the client wants ``semantic_vad``. Raises InvalidRequest."""

    def __init__(
        self,
        call: str,
        model: str,
        session: object = None,
        locked: Sequence[str] | None = None,
        *,
        pictures: Schemes = "data",
        vad: Vad = "webrtc",
        judge: Judge | None = None,
    ) -> None:
        self._config = Config(call, model, _name_of(judge))
        self._pictures, self._vad, self._judge = pictures, vad, judge
        if isinstance(session, dict):
            check_depth(session)
        self._config.update(session or {})
        self._config.lock(locked or ())

    @property
    def session(self) -> dict[str, Any]:
        """The session as events show it."""
        return self._config.event

    def converse(self, partner: Partner, around: Surroundings, *, rate_hz: int, media: bool) -> Conversation:
        """Makes the session's conversation."""
        return Conversation(
            self._config,
            partner,
            around,
            rate_hz=rate_hz,
            media=media,
            pictures=self._pictures,
            vad=self._vad,
            judge=self._judge,
        )

    def export(self) -> bytes:
        """The session's configuration."""
        return state.encoded(self._config.export())

    def take_up(
        self,
        conversation: bytes,
        partner: Partner,
        around: Surroundings,
        now: float,
        *,
        rate_hz: int,
        parts: Sequence[bytes],
    ) -> Conversation:
        """Makes the conversation that goes on where another left off. Raises ValueError where the bytes are none of
        this version's, or one of the ``parts`` is missing."""
        made = self.converse(partner, around, rate_hz=rate_hz, media=True)
        made.take_up(conversation, now, parts)
        return made

    def told(self, conversation: bytes, *, parts: Sequence[bytes]) -> tuple[Settings, list[Item]]:
        """The settings and the items that an agent is told before it has the conversation: all that are whole."""
        found = state.decoded(conversation, ConversationState)
        items = [item_of(entry.item, parts) for entry in found.items if entry.status != "in_progress"]
        return self._config.settings(), items

    @classmethod
    def taken_up(
        cls, exported: bytes, *, pictures: Schemes = "data", vad: Vad = "webrtc", judge: Judge | None = None
    ) -> Realtime:
        """The protocol of a session whose ``export`` this is. Raises ValueError where it is none of this version's."""
        made = cls("", "", pictures=pictures, vad=vad, judge=judge)
        made._config = Config.taken_up(state.decoded(exported, ConfigState), _name_of(judge))
        return made

    def write(self, event: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """The event with an ``event_id``, and its JSON."""
        event = {"event_id": new_id("event"), **event}
        return event, write(event)

    def error(self, code: str, message: str) -> dict[str, Any]:
        """An ``error`` event for a fault that is not the client's."""
        return fitting.error(code, message)

    def fit(self, event: dict[str, Any], text: str, most_bytes: int, asked: str | None) -> list[str]:
        """The event, or what can be sent in its place, as JSON of at most ``most_bytes`` each."""
        return fitting.fit(event, text, most_bytes, asked)


def _name_of(judge: Judge | None) -> str:
    return "loudness" if judge is None else "smart_turn"
