"""The learning of a capacity, on a simulated machine: a second has so much time, and calls take theirs."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transceiver.capacity import CEILING, Capacity, Window

PARROT, ECHO = ("parrot", "opus"), ("echo", "opus")
LATE_FROM = 0.85  # of a core: beyond it frames of the simulated machine are late
Kind = tuple[str, str]


@dataclass
class Machine:
    """A process whose calls have these ``costs``, beside a ``neighbour`` that takes a share of its core."""

    costs: dict[Kind, float]
    neighbour: float = 0.0
    noise: float = 0.0
    first: float = 0.0  # what the first call costs besides
    capacity: Capacity = field(default_factory=lambda: Capacity(0.02))
    live: Counter[Kind] = field(default_factory=Counter)
    begun: int = 0
    left: int = 0
    _chance: random.Random = field(default_factory=lambda: random.Random(1))

    def offer(self, kind: Kind, calls: int) -> int:
        """The number of ``calls`` that are let in, one after the other."""
        taken = 0
        for _ in range(calls):
            if self.capacity.admits(kind, self.live, self.begun):
                self.live[kind] += 1
                self.begun += 1
                taken += 1
        return taken

    @property
    def demand(self) -> float:
        """What its calls need of the time that the neighbour leaves; more than 1 cannot be done."""
        wanted = (
            0.01
            + (self.first if self.live.total() else 0.0)
            + sum(self.costs[kind] * count for kind, count in self.live.items())
        )
        return wanted / (1 - self.neighbour)

    def second(self) -> int:
        """Lets a second pass. Returns the number of calls that have to leave, which do."""
        demand = self.demand * self._chance.uniform(1 - self.noise, 1 + self.noise)
        made = min(1.0, 1 / demand)
        due = 50 * self.live.total()
        window = Window(
            seconds=1.0,
            used=min(1.0, demand),
            ran=min(1.0, demand) * (1 - self.neighbour),
            made={kind: round(50 * made * n) for kind, n in self.live.items()},
            made_s={kind: made * self.costs[kind] / (1 - self.neighbour) * n for kind, n in self.live.items()},
            begun=self.begun,
            due=due,
            missed=round(due * (1 - made)),
            lag_s=0.002 if demand < LATE_FROM else 0.02 if demand < 1 else 0.2,
        )
        self.begun = 0
        leave = self.capacity.measured(window)
        for _ in range(leave):
            self.live[next(kind for kind, count in self.live.items() if count)] -= 1
        self.left += leave
        return leave

    def run(self, seconds: int, kind: Kind = PARROT, offered: int = 20) -> None:
        for _ in range(seconds):
            self.offer(kind, offered)
            self.second()


def test_a_burst_is_not_let_in_on_an_old_measurement() -> None:
    machine = Machine({PARROT: 0.02})
    machine.second()
    assert 25 <= machine.offer(PARROT, 50) <= 44  # 50 would be more than the core


def test_calls_that_are_not_measured_yet_count_with_the_cost_that_was_learned() -> None:
    machine = Machine({PARROT: 0.04})
    machine.offer(PARROT, 5)
    for _ in range(5):
        machine.second()
    machine.offer(PARROT, 50)
    assert CEILING - 0.2 <= machine.demand <= CEILING


@given(
    cost=st.floats(0.004, 0.028),
    noise=st.floats(0, 0.05),
    offered=st.integers(3, 40),
)
@settings(max_examples=60, deadline=None)
def test_whatever_a_call_costs_the_process_fills_and_nobody_is_late(cost: float, noise: float, offered: int) -> None:
    machine = Machine({PARROT: cost}, noise=noise)
    machine.run(90, offered=offered)
    assert machine.demand <= 0.95
    assert machine.demand >= 0.85 * CEILING - cost
    assert machine.left == 0


def test_each_kind_has_its_own_cost() -> None:
    machine = Machine({PARROT: 0.04, ECHO: 0.004})
    machine.offer(PARROT, 5)
    machine.offer(ECHO, 10)
    for _ in range(10):
        machine.second()
    parrots, echoes = (machine.capacity.room(kind, machine.live) for kind in (PARROT, ECHO))
    assert parrots == pytest.approx((CEILING - machine.demand) / 0.04, abs=2)
    assert echoes == pytest.approx((CEILING - machine.demand) / 0.004, rel=0.25)


def test_what_only_the_first_call_costs_is_not_thought_to_be_the_cost_of_each() -> None:
    machine = Machine({PARROT: 0.01}, first=0.12)
    machine.run(12, offered=1)
    machine.run(10, offered=0)
    assert machine.live.total() == 12
    assert machine.capacity.room(PARROT, machine.live) == pytest.approx((CEILING - machine.demand) / 0.01, rel=0.4)


def test_a_neighbour_is_noticed_within_three_seconds_and_forgotten_again() -> None:
    machine = Machine({PARROT: 0.01})
    machine.run(10, offered=4)
    assert machine.capacity.room(PARROT, machine.live) > 20
    machine.neighbour = 0.5
    for _ in range(3):
        machine.second()
    assert machine.capacity.room(PARROT, machine.live) < 10
    machine.neighbour = 0.0
    for _ in range(60):
        machine.second()
    assert machine.capacity.room(PARROT, machine.live) > 20
    assert machine.left == 0  # they fitted beside the neighbour


def test_of_an_overloaded_process_few_leave_and_then_the_others_are_in_time() -> None:
    machine = Machine({PARROT: 0.01})
    machine.run(60)
    before = machine.live.total()
    machine.neighbour = 0.3
    per_second = [machine.second() for _ in range(30)]
    assert per_second[:2] == [0, 0]
    assert max(per_second) <= before // 10 + 1
    assert machine.demand <= 1.01
    assert machine.live.total() >= 0.9 * 0.7 / 0.01  # no more than had to
    assert not any(per_second[-10:])


def test_a_pause_of_the_machine_ends_nobody() -> None:
    machine = Machine({PARROT: 0.01})
    machine.run(60)
    due = 50 * machine.live.total()
    pause = Window(2.0, 1.0, 0.9, {PARROT: due}, {PARROT: 0.8}, due=2 * due, missed=due, lag_s=1.0)
    assert machine.capacity.measured(pause) == 0
    assert machine.second() == 0
    assert machine.capacity.measured(pause) == 0
    assert machine.left == 0


def test_calls_stay_where_fewer_of_them_would_help_nobody() -> None:
    machine = Machine({PARROT: 0.01})
    machine.offer(PARROT, 10)
    stalls = Window(1.0, 0.2, 0.2, {PARROT: 450}, {PARROT: 0.1}, due=500, missed=100, lag_s=0.1)
    assert [machine.capacity.measured(stalls) for _ in range(20)] == [0] * 20


def test_the_last_call_stays() -> None:
    machine = Machine({PARROT: 0.3})
    machine.offer(PARROT, 2)
    machine.neighbour = 0.9
    for _ in range(30):
        machine.second()
    assert machine.live.total() == 1


def test_a_process_without_calls_takes_one() -> None:
    capacity = Capacity(prior=3.0)
    assert capacity.room(PARROT, {}) == 1
    assert capacity.room(PARROT, {PARROT: 1}) == 0


def test_room_does_not_flap_at_the_limit() -> None:
    machine = Machine({PARROT: 0.001}, noise=0.002)
    machine.run(90, offered=200)
    full = machine.live.total()
    machine.live[PARROT] -= 5  # half a percent of the core
    assert not machine.capacity.admits(PARROT, machine.live)
    machine.live[PARROT] = full - 150
    assert machine.capacity.admits(PARROT, machine.live)


def a_second(calls: int, used: float, lag_s: float, missed: int = 0) -> Window:
    due = 50 * calls
    return Window(1.0, used, used, {PARROT: due - missed}, {PARROT: 0.8 * used}, due=due, missed=missed, lag_s=lag_s)


def test_lateness_brings_the_limit_down_and_calm_brings_it_back() -> None:
    capacity, live = Capacity(0.01), {PARROT: 60}
    capacity.measured(a_second(60, 0.7, 0.02))
    assert capacity.room(PARROT, live) > 0  # one second says little
    capacity.measured(a_second(60, 0.7, 0.02))
    assert capacity.limit < 0.7
    assert capacity.room(PARROT, live) == 0
    for _ in range(60):
        capacity.measured(a_second(60, 0.7, 0.002))
    assert capacity.room(PARROT, live) > 0


def test_where_frames_were_missed_nobody_is_let_in_soon_again() -> None:
    """Each try costs frames. Once may have been a pause of the machine, so that is tried again sooner."""
    capacity, live = Capacity(0.01), {PARROT: 60}
    for _ in range(5):
        capacity.measured(a_second(60, 0.7, 0.002))
    assert capacity.room(PARROT, live) > 0
    for _ in range(2):
        capacity.measured(a_second(60, 0.7, 0.002, missed=9))
        assert capacity.limit == pytest.approx(0.95 * 0.7)
        assert capacity.room(PARROT, live) == 0
    for _ in range(10):
        capacity.measured(a_second(60, 0.7, 0.002))
    assert capacity.limit >= CEILING
    capacity.measured(a_second(60, 0.7, 0.002, missed=9))
    assert capacity.limit == pytest.approx(0.95 * 0.7)
    for _ in range(20):
        capacity.measured(a_second(60, 0.7, 0.002))
    assert capacity.room(PARROT, live) == 0
    for _ in range(60):
        capacity.measured(a_second(60, 0.7, 0.002))
    assert capacity.limit >= CEILING


def test_frames_that_are_missed_three_seconds_in_a_row_are_no_pause_of_the_machine() -> None:
    capacity = Capacity(0.01)
    for _ in range(5):
        capacity.measured(a_second(60, 0.7, 0.002))
    for _ in range(3):
        capacity.measured(a_second(60, 0.7, 0.002, missed=9))
    for _ in range(10):
        capacity.measured(a_second(60, 0.7, 0.002))
    assert capacity.limit == pytest.approx(0.95 * 0.7 + 10 * 0.002)


def test_the_second_after_a_pause_is_late_and_says_nothing_more() -> None:
    capacity = Capacity(0.01)
    for _ in range(5):
        capacity.measured(a_second(60, 0.7, 0.002))
    capacity.measured(a_second(60, 0.76, 0.05, missed=90))
    paused = capacity.limit
    capacity.measured(a_second(60, 0.6, 0.015))
    assert paused <= capacity.limit <= paused + 0.011


def test_frames_that_are_missed_while_calls_come_are_missed_at_what_all_of_these_use() -> None:
    capacity = Capacity(0.01)
    for calls in range(0, 61, 12):  # what is in use on average is a good deal less
        capacity.measured(a_second(calls, 0.012 * calls, 0.002))
    capacity.measured(a_second(60, 0.72, 0.02, missed=9))
    assert capacity.limit == pytest.approx(0.95 * 0.72, abs=0.03)


def test_a_process_that_is_full_and_on_time_takes_a_little_more_until_it_is_late() -> None:
    capacity = Capacity(0.01)
    for _ in range(30):
        capacity.measured(a_second(20, 0.3, 0.002))
    assert capacity.limit == CEILING  # that says nothing of what it could do
    for _ in range(30):
        capacity.measured(a_second(60, 0.74, 0.002))
    most = capacity.limit
    assert CEILING < most < 0.85
    for _ in range(10):
        capacity.measured(a_second(60, 0.74, 0.013))
    assert capacity.limit < most
    for _ in range(200):
        capacity.measured(a_second(60, 0.74, 0.013))
    assert capacity.limit == 0.5  # from where it comes back within a minute


def test_frames_that_are_late_on_a_process_with_little_to_do_are_not_for_it_to_mend() -> None:
    capacity, live = Capacity(0.01), {PARROT: 10}
    for _ in range(30):
        capacity.measured(a_second(10, 0.1, 0.02))
    assert capacity.room(PARROT, live) > 10
    for _ in range(30):
        capacity.measured(a_second(10, 0.3, 0.05, missed=100))
    assert capacity.room(PARROT, live) == 0  # whoever comes now would be missing as many


def test_an_agent_that_is_far_dearer_than_was_thought_costs_a_few_calls_of_the_first_burst_alone() -> None:
    machine = Machine({PARROT: 0.06})
    first = machine.offer(PARROT, 50)
    machine.run(60)
    assert first - 16 <= machine.left <= first - 10
    machine.left = 0
    machine.run(60)
    assert machine.left == 0
