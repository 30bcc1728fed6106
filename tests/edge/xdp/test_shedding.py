"""The controller of early drop, against a core made of arithmetic: what is offered, kept, and waits there."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from edge.xdp.shedding import ABSURD_S, BURST_S, INTERVAL_S, TARGET_S, Controller, StrangersController

STEP_S = 0.001
ROOM_S = 0.04  # what a socket's buffer holds, in time


@dataclass
class Core:
    """A core and its queue; loads are in what it can do. ``delays_s`` and ``probabilities`` are of every step."""

    controller: Controller = field(default_factory=Controller)
    strangers: StrangersController = field(default_factory=StrangersController)
    now: float = 1000.0
    waiting_s: float = 0.0
    done_s: float = 0.0
    delays_s: list[float] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    strangers_kept: list[float] = field(default_factory=list)

    def run(
        self, seconds: float, load: float, *, strangers: float = 0.0, stalled: bool = False, wrong_s: float = 0.0
    ) -> Core:
        """``stalled``: nothing is read meanwhile. ``wrong_s`` is by how much the clock of the ages is wrong."""
        for _ in range(round(seconds / STEP_S)):
            self.now += STEP_S
            came_s = STEP_S * load * (1.0 - self.controller.probability)
            came_s += STEP_S * strangers * (1.0 - self.strangers.probability)
            self.waiting_s = min(ROOM_S, self.waiting_s + came_s)
            if not stalled:
                done_s = min(STEP_S, self.waiting_s)
                self.waiting_s -= done_s
                self.done_s += done_s
                if self.controller.due(self.now):
                    self.controller.update(self.waiting_s + wrong_s, self.now)
                    self.strangers.update(self.waiting_s + wrong_s, self.now)
            self.delays_s.append(self.waiting_s)
            self.probabilities.append(self.controller.probability)
            self.strangers_kept.append(1.0 - self.strangers.probability)
        return self

    def since(self, seconds: float) -> tuple[list[float], list[float]]:
        """The delays and probabilities from so many seconds on."""
        start = round(seconds / STEP_S)
        return self.delays_s[start:], self.probabilities[start:]


@pytest.mark.parametrize("load", [1.1, 1.5, 2.0, 3.0, 6.0])
def test_an_overloaded_core_is_kept_busy_and_in_time(load: float) -> None:
    core = Core().run(0.5, load)
    before_s = core.done_s
    core.run(2.0, load)
    assert core.done_s - before_s > 0.98 * 2.0, "it stood idle while media was shed"
    core.run(2.0, load)
    delays_s, probabilities = core.since(2.5)
    assert TARGET_S / 2 < min(delays_s) <= max(delays_s) < 1.5 * TARGET_S
    assert sum(probabilities) / len(probabilities) == pytest.approx(1 - 1 / load, abs=0.02)


@pytest.mark.parametrize("load", [1.2, 1.5, 2.0])
def test_it_takes_less_than_half_a_second(load: float) -> None:
    delays_s, _ = Core().run(1.0, load).since(0.5)
    assert max(delays_s) < 2 * TARGET_S


def test_a_core_that_keeps_up_sheds_nothing() -> None:
    core = Core().run(3.0, 0.95)
    assert max(core.probabilities) == 0.0
    assert min(core.strangers_kept) == 1.0


@pytest.mark.parametrize("strangers", [0.4, 1.0, 2.0, 6.0])
@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_while_live_calls_fit_the_core_only_strangers_are_shed(load: float, strangers: float) -> None:
    core = Core().run(1.0, load).run(5.0, load, strangers=strangers)
    assert max(core.probabilities) == 0.0
    delays_s, _ = core.since(2.0)
    assert max(delays_s) < TARGET_S
    if load + strangers > 1:
        assert min(core.strangers_kept) < 0.9


def test_strangers_are_shed_before_media_and_while_it_is() -> None:
    core = Core().run(2.0, 1.5)
    first = next(at for at, probability in enumerate(core.probabilities) if probability > 0)
    assert core.strangers_kept[first] < 0.1
    assert max(core.strangers_kept[first:]) < 0.1


def test_strangers_get_what_live_calls_leave() -> None:
    core = Core().run(2.0, 0.5).run(10.0, 0.5, strangers=2.0)
    kept = core.strangers_kept[-5000:]
    assert 0.15 < sum(kept) / len(kept) <= 0.25, "a quarter of them fits"


def test_strangers_come_back_within_two_seconds() -> None:
    core = Core().run(1.0, 0.5, strangers=3.0)
    assert core.strangers_kept[-1] < 0.5
    assert core.run(2.0, 0.5).strangers_kept[-1] == 1.0


def test_strangers_come_back_to_a_core_that_looks_once_a_second() -> None:
    controller = Core().run(1.0, 0.5, strangers=3.0).strangers
    assert controller.probability > 0.5
    for second in (1, 2):
        controller.update(0.0, 1001.0 + second)
    assert controller.probability == 0.0


def test_a_stall_of_a_few_rounds_sheds_nobody() -> None:
    core = Core().run(0.5, 0.5)
    for _ in range(5):
        core.run(0.02, 0.5, stalled=True).run(0.3, 0.5)
    assert max(core.delays_s) > TARGET_S / 2, "there was no stall"
    assert min(core.strangers_kept) == 1.0


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_a_stall_of_50_ms_costs_nothing(load: float) -> None:
    core = Core()
    for _ in range(5):
        core.run(0.5, load).run(0.05, load, stalled=True)
    core.run(1.0, load)
    assert max(core.delays_s) > TARGET_S, "there was no stall"
    assert max(core.probabilities) == 0.0


def test_what_stands_for_longer_than_a_burst_is_shed() -> None:
    core = Core().run(BURST_S, 2.0)
    assert core.controller.probability == 0.0
    assert core.run(2 * BURST_S, 2.0).controller.probability > 0.3


def test_bursts_that_leave_no_time_between_them_are_an_overload() -> None:
    core = Core()
    for _ in range(10):
        core.run(0.1, 2.0).run(0.05, 0.2)
    assert max(core.probabilities) > 0.1


@pytest.mark.parametrize("load", [0.0, 0.8])
def test_it_ends_when_the_overload_does(load: float) -> None:
    core = Core().run(2.0, 2.0)
    assert core.controller.probability > 0.4
    core.run(1.0, load)
    assert core.controller.probability == 0.0
    _, probabilities = core.run(2.0, load).since(3.0)
    assert max(probabilities) == 0.0


def test_however_much_is_offered_some_comes_through() -> None:
    assert max(Core().run(3.0, 1e6).probabilities) < 1.0


@pytest.mark.parametrize("wrong_s", [-5.0, -0.1, 3.0, 1e9, float("nan")])
def test_a_clock_that_was_set_changes_nothing(wrong_s: float) -> None:
    for load in (0.5, 2.0):
        core = Core().run(2.0, load)
        before = core.controller.probability
        kept = core.strangers_kept[-1]
        assert core.run(0.04, load, wrong_s=wrong_s).controller.probability == before
        assert core.strangers_kept[-1] == kept
        _, probabilities = core.run(1.0, load).since(2.0)
        assert max(probabilities) - min(probabilities) < 0.1


def test_the_longest_delay_that_is_believed() -> None:
    for delay_s, believed in ((ABSURD_S, False), (0.999 * ABSURD_S, True)):
        controller = Core().run(2.0, 2.0).controller
        before = controller.probability
        assert (controller.update(delay_s, 1100.0) != before) is believed


def test_updates_are_an_interval_apart() -> None:
    controller = Controller()
    assert controller.due(5.0)
    controller.update(0.0, 5.0)
    assert not controller.due(5.0 + 0.9 * INTERVAL_S)
    assert controller.due(5.0 + 1.01 * INTERVAL_S)
