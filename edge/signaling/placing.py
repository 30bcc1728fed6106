"""The placing of new sessions: transceivers are asked in the order in which ``edge.placement`` ranks them by their
reports, and those that are full, away or silent are passed over. Those that make no report are asked by turns.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, TypeVar

from edge.directory import Known, Transceiver
from edge.links.transceivers import Lost, RequestRefused, Silent, Transceivers, Unavailable
from edge.placement.explain import Explanation, explain
from edge.placement.fleet import Fleet
from edge.placement.fullness import Fullness
from edge.placement.placer import Choice, Placer, Wanted
from edge.placement.score import POLICIES
from edge.placement.ways import Ways, host_of
from edge.signaling.access import Caller
from edge.signaling.errors import Refusal, refused, unavailable
from edge.signaling.ledger import Held, Ledger
from runtime import logs
from runtime.config import Edge
from runtime.families import edge as families
from runtime.histogram import Histogram
from runtime.metrics import Gauges, Tally
from runtime.tracing.shapes import PLACEMENT
from runtime.tracing.spans import NOTHING, Span, Value
from wire import messages
from wire.report import name_and_version
from wire.ufrag import call_id

__all__ = ["Placing"]

_PULSE_S = 0.5  # within which a transceiver that lives has said that it does
_FULL = "full", "draining"  # codes with which a transceiver sends a call on to the next
_NO_ROOM = *_FULL, "no_transceiver"  # codes of refusals that are no fault of who asks
_PASSED_OVER_S = 2.0
_DEADLINE_S = 5.0  # after which nobody else is asked for a request
_CALL_S = 120.0  # a guess, for those who are told when another try makes sense
_RETRY_S = (2, 30)
_MOST_NAMED = 20
_CHANCE = random.SystemRandom()

Reply = TypeVar("Reply", bound=messages.Message)
Placed = TypeVar("Placed", messages.Answer, messages.Opened)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A transceiver that makes no report, and whose turn it is."""

    id: int
    why: str = "by turns"


class Placing:
    """The placing of sessions on ``transceivers``, entered in the ledger.

    What a caller sent goes to one transceiver. That one is asked first whether it lives, so what is silent afterwards
    is silent because of the request, and it would silence the next transceiver too. One whose link breaks may have died
    of the request, or of something else: one more is asked then.
    """

    def __init__(self, transceivers: Transceivers, ledger: Ledger, edge: Edge, chance: random.Random = _CHANCE) -> None:
        self._transceivers = transceivers
        self._ledger = ledger
        self._region, self._within = edge.region, edge.regions
        self._chance = chance
        self._fleet, self._ways = Fleet(), Ways()
        self._unreported: OrderedDict[int, None] = OrderedDict()  # the first is the next to be asked
        self._placer = Placer(self._fleet, POLICIES[edge.placement], chance)
        self._silent_until: dict[int, float] = {}
        self._fullness = Fullness()
        self._outcomes, self._times = Tally(families.PLACEMENTS), Histogram(families.PLACEMENT_TIME)
        self._choosing, self._placing = self._times.of("choose"), self._times.of("place")
        policy = Gauges(families.PLACEMENT_POLICY, lambda: {(edge.placement,): 1})
        self.metrics = self._outcomes, self._times, policy
        transceivers.directory.subscribe(self)
        transceivers.directory.listen(self._reported)

    async def place(
        self,
        caller: Caller,
        ask: Callable[[int], Awaitable[Placed]],
        model: str,
        *,
        socket: bool = False,
        span: Span = NOTHING,
    ) -> tuple[int, Placed]:
        """Places a session with ``model`` ("" for the transceiver's own), for the request of ``span``. Returns the
        transceiver that took it and its reply; nobody is asked where all have just refused for want of room. Raises
        Refusal."""
        asked = caller.key, model
        if why := self._fullness.get(asked, time.monotonic(), self._ledger.ends):
            self._count("full", True)
            raise Refusal(503, why, code="full", retry_after_s=self._retry_after_s())
        wait = self._ledger.admit(caller.key, time.monotonic(), caller.token_id)
        if wait is not None:
            message = f"Rate limit reached: {wait.whose} has as many calls, or new calls this minute, as it may."
            raise Refusal(429, message, code="rate_limit_exceeded", retry_after_s=max(1, ceil(wait.seconds)))
        ufrag, held, began_ns = None, None, time.monotonic_ns()
        placement = span.child(PLACEMENT, attributes={"gen_ai.agent.name": model or None})
        try:
            transceiver, reply = await self.anywhere(ask, model, may=caller.may, call=True, span=placement)
            ufrag, held = reply.ufrag, Held(caller.key, caller.token_id, transceiver, socket)
            span.put({"firsthop.call.id": call_id(ufrag)})
            return transceiver, reply
        except Refusal as e:
            placement.fail(e.code or str(e.status))
            if e.code == "full":
                self._fullness.put(asked, str(e), time.monotonic(), self._ledger.ends)
            if e.code in _NO_ROOM:
                self._ledger.no_room(caller.key, time.monotonic(), caller.token_id)
            raise
        finally:
            placement.end()
            self._placing.add(time.monotonic_ns() - began_ns)
            self._ledger.settle(caller.key, caller.token_id, ufrag, held)

    async def anywhere(
        self,
        ask: Callable[[int], Awaitable[Reply]],
        model: str,
        *,
        may: Callable[[str], bool] = lambda model: True,
        call: bool = False,
        span: Span = NOTHING,
    ) -> tuple[int, Reply]:
        """Asks one transceiver after the other, until one is neither full nor away. Returns it and its reply. ``may``
        says whether a model may be named to who asks; a ``call`` takes a place where it is taken; ``span`` hears how it
        was chosen. Raises Refusal."""
        until = time.monotonic() + _DEADLINE_S
        wanted = Wanted(*name_and_version(model), self._region, self._within)
        self._check(wanted, may)
        nobody = trouble = self._nobody(model)
        lost, given = False, set[int]()
        for tries, choice in enumerate(self._order(wanted), 1):
            if choice.id in given:  # and its link broke
                continue
            if tries > 1 and time.monotonic() > until:
                break
            if call:
                self._placer.asked(choice.id)
            taken = False
            try:
                if not await self._lives(choice.id):
                    raise Unavailable(f"transceiver {choice.id} does not answer")
                given.add(choice.id)
                reply = await ask(choice.id)
                taken = True
            except (Silent, Lost) as e:
                self._pass_over(choice.id)
                if isinstance(e, Silent) or lost:
                    self._count("away", call)
                    raise unavailable(e) from None
                lost, trouble = True, unavailable(e)
            except Unavailable as e:
                trouble = unavailable(e)
            except RequestRefused as e:
                refusal = refused(e)
                if wanted.version and e.code == "model_not_found":
                    # It has made no report, or has been upgraded since. Another may have that version.
                    trouble = refusal if trouble is nobody else trouble
                    continue
                trouble = refusal
                if e.code not in _FULL:
                    self._count("refused", call)
                    raise trouble from None
                self._placer.full(choice.id)
            finally:
                if call:
                    (self._placer.placed if taken else self._placer.failed)(choice.id)
                if span:
                    span.event(
                        "tried", {"firsthop.placement.transceiver": choice.id, "firsthop.placement.taken": taken}
                    )
            if taken:
                self._count("placed" if tries == 1 else "placed_after_retry", call)
                if call:
                    reasons = _reasons(choice)
                    if span:
                        span.put(self._chosen(wanted, choice.id, tries, reasons))
                    logs.get().info("placed", transceiver=choice.id, model=model, tries=tries, **reasons, **span.fields)
                return choice.id, reply
        if trouble.code in _FULL:
            trouble.headers["Retry-After"] = str(self._retry_after_s())
        outcome = trouble.code if trouble.code == "model_not_found" else "away"
        self._count("full" if trouble.code in _NO_ROOM else outcome, call)
        raise trouble

    async def elsewhere(
        self,
        ask: Callable[[int], Awaitable[Reply]],
        model: str,
        *,
        but: int,
        may: Callable[[str], bool],
        not_here: Refusal,
    ) -> Reply:
        """Has a call that is at the transceiver ``but`` move to another one that reports the model: ``ask`` has each
        asked, until one takes it. The refusal is ``not_here`` where nobody reports what it has.
        Raises Refusal."""
        wanted = Wanted(*name_and_version(model), self._region, self._within)
        trouble = (self._missing(wanted, may) or self._nobody(model)) if len(self._fleet) else not_here
        gone = 0
        until = time.monotonic() + _DEADLINE_S
        for choice in self._placer.choices(wanted, time.monotonic()):
            if choice.id == but:
                continue
            if time.monotonic() > until or gone > 1:
                break
            if not await self._lives(choice.id):
                trouble = unavailable(Unavailable(f"transceiver {choice.id} does not answer"))
                continue
            self._placer.asked(choice.id)
            taken = False
            try:
                reply = await ask(choice.id)
                taken = True
            except Unavailable as e:
                raise unavailable(e) from None
            except RequestRefused as e:
                trouble = refused(e)
                if e.code in _FULL:
                    self._placer.full(choice.id)
                elif e.code == "gone":  # perhaps because of this call: one more is asked
                    gone += 1
                elif e.code != "model_not_found":
                    break
            finally:
                (self._placer.placed if taken else self._placer.failed)(choice.id)
            if taken:
                logs.get().info("placed anew", transceiver=choice.id, model=model, **_reasons(choice))
                return reply
        raise trouble

    def explain(self, model: str, version: str = "", region: str = "") -> Explanation:
        """What would become of a call now. ``model`` may name its version as well; ``region`` is in place of this
        edge's own."""
        name, its_version = name_and_version(model)
        wanted = Wanted(name, version or its_version, region or self._region, self._within)
        return explain(self._placer, wanted, time.monotonic(), tuple(self._unreported))

    # --- the directory's

    def came(self, transceiver: Transceiver) -> None:
        """Nothing is known of it before it reports."""
        self._fullness.clear()
        self._unreported[transceiver.id] = None

    def changed(self, transceiver: Transceiver) -> None:
        """The report of the process that it is now will come."""

    def went(self, transceiver: Transceiver) -> None:
        """Forgets it."""
        self._fleet.remove(transceiver.id)
        self._ways.remove(transceiver.id)
        self._unreported.pop(transceiver.id, None)
        self._silent_until.pop(transceiver.id, None)

    def _reported(self, known: Known) -> None:
        number = known.report.id
        if not known.report.draining and any(model.room != 0 for model in known.report.models):
            self._fullness.clear()
        self._unreported.pop(number, None)
        host = host_of(self._transceivers.directory.present[number].endpoint)
        for other in self._ways.measured(number, host, known.least_round_trip_s):
            self._fleet.tell_way(other, self._ways.way_s(other))
        self._fleet.put(known.report, known.received_at, self._ways.way_s(number))

    # --- the order

    def _check(self, wanted: Wanted, may: Callable[[str], bool]) -> None:
        """Raises Refusal for a model or a version that nobody has, where all have said what they have."""
        refusal = None if self._unreported else self._missing(wanted, may)
        if refusal is not None:
            self._count("model_not_found", True)
            raise refusal

    def _missing(self, wanted: Wanted, may: Callable[[str], bool]) -> Refusal | None:
        """The refusal of a model or a version that nobody reports; None where somebody does, or nobody reports."""
        model, version = wanted.model, wanted.version
        if not model or self._fleet.has(model, version) or not len(self._fleet):
            return None
        if self._fleet.has(model):
            names = [f"{model}@{each}" for each in self._fleet.versions_of(model)][:_MOST_NAMED]
            there = f"there is {', '.join(names)}" if names else "none says its version"
            message = f"no transceiver has version {version!r} of {model!r}: {there}"
        else:
            names = [name for name in self._fleet.names if may(name)][:_MOST_NAMED]
            there = f"there is {', '.join(names)}" if names else "there is none that this key may use"
            message = f"no transceiver has a model called {model!r}: {there}"
        return Refusal(404, message, code="model_not_found", param="model")

    def _nobody(self, model: str) -> Refusal:
        """The refusal where nobody can be asked."""
        if not self._transceivers.directory.present:
            return Refusal(503, "no transceiver is configured", code="no_transceiver", retry_after_s=_RETRY_S[0])
        where = f" in {' or '.join(self._within)}" if self._within else ""
        message = f"no transceiver{where} takes calls of {model or 'any model'} now: try again"
        return Refusal(503, message, code="no_transceiver", retry_after_s=_RETRY_S[0])

    def _order(self, wanted: Wanted) -> Iterator[Choice | _Turn]:
        """Those to ask, one after the other; those that were silent just now come last. Those that fall silent now come
        once more: they may have stood still for a moment, and there is nobody else."""
        silent: list[Choice | _Turn] = []
        asked: list[Choice | _Turn] = []
        choices = self._mixed(wanted)
        while True:
            began_ns = time.monotonic_ns()
            choice = next(choices, None)
            self._choosing.add(time.monotonic_ns() - began_ns)
            if choice is None:
                break
            if self._silent_until.get(choice.id, 0.0) > time.monotonic():
                silent.append(choice)
            else:
                yield choice
                asked.append(choice)
        yield from silent
        now = time.monotonic()
        yield from [choice for choice in asked if self._silent_until.get(choice.id, 0.0) > now]

    def _mixed(self, wanted: Wanted) -> Iterator[Choice | _Turn]:
        """Those that report as they are ranked, and those that do not by turns: each gets its share of the calls."""
        turns, many = self._turns(), len(self._unreported)
        ranked = self._placer.choices(wanted, time.monotonic())
        if many and self._chance.random() * (many + len(self._fleet)) < many:
            yield from turns
        for choice in ranked:
            if choice.why == "full":
                yield from turns
            yield choice
        yield from turns

    def _turns(self) -> Iterator[_Turn]:
        """Those that make no report, each once. Whose turn it is goes to the end of the line; the others are looked at
        where that one does not take the call: there may be ten thousand."""
        first = next(iter(self._unreported), None)
        if first is None:
            return
        self._unreported.move_to_end(first)
        yield _Turn(first)
        yield from (_Turn(number) for number in list(self._unreported) if number != first)

    def _retry_after_s(self) -> int:
        """When a place may have come free: sooner where there are many calls, and not for all who ask at once."""
        sessions = self._fleet.calls
        least, most = _RETRY_S
        soon = min(most // 2, max(least, ceil(_CALL_S / max(1, sessions))))
        return soon + self._chance.randrange(soon + 1)

    def _chosen(self, wanted: Wanted, number: int, tries: int, reasons: dict[str, Any]) -> dict[str, Value | None]:
        """The choice as a span has it."""
        offers = self._fleet.models.get(wanted.model)
        return {
            "firsthop.placement.candidates": (offers.size if offers is not None else 0) + len(self._unreported),
            "firsthop.placement.tries": tries,
            "firsthop.placement.transceiver": number,
            "firsthop.placement.region": reasons.get("region") or None,
            "firsthop.placement.why": reasons["why"],
            "firsthop.placement.score_ms": reasons.get("score_ms"),
            "firsthop.placement.used_ratio": reasons.get("used"),
            "firsthop.placement.runner_up": reasons.get("runner_up"),
        }

    def _count(self, outcome: str, call: bool) -> None:
        if call:
            self._outcomes[outcome] += 1

    # --- silence

    def _pass_over(self, transceiver: int) -> None:
        self._silent_until[transceiver] = time.monotonic() + _PASSED_OVER_S

    async def _lives(self, transceiver: int) -> bool:
        try:
            await self._transceivers.ask(transceiver, messages.Health(), patience_s=_PULSE_S)
        except Silent:
            self._pass_over(transceiver)
            return False
        except (Unavailable, RequestRefused):
            return False
        self._silent_until.pop(transceiver, None)
        return True


def _reasons(choice: Choice | _Turn) -> dict[str, Any]:
    """Why, for the log."""
    if isinstance(choice, _Turn):
        return {"why": choice.why}
    reasons = asdict(choice)
    del reasons["id"]
    runner_up, its_ms = reasons.pop("over") or (None, None)
    return {**reasons, "runner_up": runner_up, "its_ms": its_ms}
