"""Tells each transceiver which others there are, so that one that is about to leave knows where its calls can go."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Never

from edge.directory import Directory, Known, Transceiver
from edge.links.transceivers import Transceivers, Unavailable
from wire import messages
from wire.messages import MAX_NEIGHBOURS, Neighbour
from wire.versions import MOVES

__all__ = ["neighbours", "tell_forever"]

_EVERY_S = 2.0


def neighbours(directory: Directory, of: int, chance: random.Random) -> list[Neighbour]:
    """Transceivers to which ``of`` could hand calls over: all others, or as many as one message holds by chance."""
    others = [each for each in directory.present.values() if each.id != of]
    if len(others) > MAX_NEIGHBOURS:
        others = chance.sample(others, MAX_NEIGHBOURS)
    return [_neighbour(each, directory.reports.get(each.id)) for each in others]


def _neighbour(transceiver: Transceiver, known: Known | None) -> Neighbour:
    if known is None:
        return Neighbour(id=transceiver.id, endpoint=transceiver.endpoint)
    report = known.report
    rooms = [model.room for model in report.models if model.room is not None]
    room = max(rooms, default=None)  # of the model of which it can take most: it is asked about each call
    if report.most:
        places = max(0, report.most - report.sessions)
        room = places if room is None else min(room, places)
    return Neighbour(id=transceiver.id, endpoint=transceiver.endpoint, room=room, draining=report.draining)


async def tell_forever(directory: Directory, transceivers: Transceivers) -> Never:
    """Tells all that are linked, every two seconds. One that is away is told when it is back."""
    chance = random.Random()  # noqa: S311  # nothing secret
    while True:
        for number in transceivers.linked:
            others = neighbours(directory, number, chance)
            with suppress(Unavailable):
                await transceivers.tell(number, messages.Neighbours(neighbours=others), least=MOVES)
        await asyncio.sleep(_EVERY_S)
