"""The agent's seat in a conversation: who has it, who still finishes a response, and what a successor knows. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transceiver.agents import Item, Settings
from transceiver.realtime.config import Config, SemanticVad
from transceiver.realtime.items import Items
from transceiver.realtime.listening import Listening
from transceiver.realtime.response import Making
from transceiver.talk.protocol import Partner

__all__ = ["Seat"]

_LEAST_WORD_MS = 400


class Seat:
    """The seat that ``partner`` has. Whoever was asked for a response is also told that nobody wants it any more, even
    if another one has the seat by then."""

    def __init__(
        self,
        partner: Partner,
        config: Config,
        items: Items,
        listening: Listening,
        emit: Callable[[dict[str, Any]], None],
        busy: Callable[[], bool],
    ) -> None:
        self.partner = partner
        self._busy = busy
        self._config, self._items, self._listening, self._emit = config, items, listening, emit
        self._asked: list[tuple[Making, Partner]] = []  # which are made, or heard
        listening.serve(partner.wants_turns, partner.pauses_ms)
        self._told: set[str] = set()  # the ids of items that the next one knows

    def resume(self, state: object) -> None:
        """Tells an agent that goes on where another has been what there is; ``state`` is that one's."""
        self.partner.configured(self._config.settings())
        self.partner.resume(state, self._items.view())

    def respond(self, making: Making) -> None:
        """Asks for a response."""
        self._asked = [(known, by) for known, by in self._asked if not known.settled]
        self._asked.append((making, self.partner))
        self.partner.respond(making)

    def paused(self, edge: str, turn: str) -> None:
        """Tells that the caller has ``paused`` within the turn of that id, or ``resumed``; of other edges nothing."""
        if edge == "resumed":
            self.partner.speech_resumed()
        if edge != "paused":
            return
        item = Item(turn, "message", "user", pcm=self._listening.so_far())
        self.partner.speech_paused(self._listening.paused_ms, [*self._items.view(), item])

    def cancelled(self, making: Making) -> None:
        """Tells that nobody wants that response any more."""
        next((by for known, by in self._asked if known is making), self.partner).cancelled(making)

    @property
    def yields_after_ms(self) -> int:
        """How long the caller must speak before the agent that speaks falls silent. By semantic turn detection no
        cough, no "mm-hm" and no key that is typed takes the floor."""
        semantic = isinstance(self._config.turn_detection, SemanticVad)
        return max(self.partner.yields_after_ms, _LEAST_WORD_MS if semantic else 0)

    @property
    def busy(self) -> bool:
        """Whether the agent has the floor: a response is made, or heard."""
        return self._busy()

    def makes(self, partner: Partner) -> bool:
        """Whether it is still making a response."""
        return any(by is partner and not making.over for making, by in self._asked)

    def give_up(self, partner: Partner) -> None:
        """Ends the responses that it is still making, as far as they have come."""
        for making, by in tuple(self._asked):
            if by is partner and not making.over:
                making.finish("incomplete")

    @property
    def told(self) -> tuple[Settings, list[Item]]:
        """What an agent that is to have the seat later is told."""
        items = [entry.item for entry in self._items if entry.status != "in_progress"]
        return self._config.settings(), items

    def prepare(self, partner: Partner, state: object) -> tuple[Settings, list[Item]]:
        """Tells an agent that is to have the seat later what there has been; ``state`` is that of the present one, or
        None. Returns the settings and the items that it was told; what is still being said it learns afterwards."""
        settings, items = self.told
        self._told = {item.id for item in items}
        partner.configured(settings)
        partner.resume(state, items)
        return settings, items

    def take(self, model: str, known: set[str]) -> None:
        """Lets the agent that has the seat since it goes on here begin, which was prepared elsewhere: it knows the
        items with the ids ``known``, and clients know it as ``model``."""
        self._told = known
        self.give_to(self.partner, model)

    def give_to(self, partner: Partner, model: str) -> None:
        """Gives the seat to an agent that was prepared, which is told what has come since. Clients know it as
        ``model``."""
        self._config.rename(model)
        partner.configured(self._config.settings())
        for entry in self._items:
            if entry.id not in self._told and entry.item.role == "user":
                partner.committed(entry.item)
        self._told = set()
        if self._listening.speaking:
            partner.speech_started()
        self.partner = partner
        self._listening.lead(False)
        self._listening.serve(partner.wants_turns, partner.pauses_ms)
        self._emit({"type": "session.updated", "session": self._config.event})
