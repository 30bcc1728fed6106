"""ICE's controlling side towards several candidates: which pair is selected, kept warm, and left."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rtc.ice.checklist import WEAK_AFTER_S, Checklist
from rtc.ice.controlling import CONSENT_LOST_S, Credentials
from wire import address as flow
from wire import stun

FIRST, SECOND = flow.pack("203.0.113.10", 3478), flow.pack("203.0.113.20", 3478)
CALLER = flow.pack("198.51.100.7", 40000)
PASSWORD = "their-password-24-chars!"


class Net:
    """The servers behind both candidates, and a clock. ``up`` are those that answer; ``asked`` are the checks that came
    to each, by time and whether they nominate."""

    def __init__(self, *remotes: bytes) -> None:
        credentials = Credentials("mine", "my-password-of-24-chars!", "theirs", PASSWORD)
        self.ice = Checklist(credentials, remotes or (FIRST, SECOND))
        self.now = 10.0
        self.up = {FIRST, SECOND}
        self.speaking = False  # media comes from wherever our checks nominate
        self.asked: dict[bytes, list[tuple[float, bool]]] = {FIRST: [], SECOND: []}

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            checks, due = self.ice.poll(self.now)
            for remote, check in checks:
                message = stun.parse(check)
                assert message is not None
                self.asked[remote].append((self.now, stun.USE_CANDIDATE in message.attributes))
                if remote in self.up:
                    response = stun.binding_response(message, CALLER, PASSWORD.encode())
                    assert self.ice.receive(response, remote, self.now) is None
            if self.speaking and self.ice.selected in self.up:
                self.ice.came(self.ice.selected, self.now)
            if not checks:
                assert due > self.now, "it would be asked again at once"
                self.now = min(end, due, self.now + 0.02 if self.speaking else end)


def test_the_preferred_candidate_that_answers_is_selected_and_nominated() -> None:
    net = Net()
    net.run(1.0)
    assert net.ice.selected == FIRST
    assert net.asked[FIRST][-1][1]
    assert not any(nominates for _, nominates in net.asked[SECOND])


def test_where_the_preferred_one_is_silent_the_other_is_taken() -> None:
    net = Net()
    net.up = {SECOND}
    net.run(1.0)
    assert net.ice.selected == SECOND
    assert net.ice.connected_at == pytest.approx(10.05)
    assert net.asked[SECOND][-1][1]


def test_pairs_that_are_not_selected_are_kept_warm() -> None:
    net = Net()
    net.speaking = True
    net.run(60.0)
    asked = [at for at, _ in net.asked[SECOND]]
    assert max(later - at for at, later in pairwise(asked)) <= 15.1
    assert len(asked) <= 8
    assert net.ice.selected == FIRST
    assert net.ice.moves == 0


@pytest.mark.parametrize("speaking", [True, False])
def test_a_pair_that_dies_is_left_for_one_that_answers(speaking: bool) -> None:
    net = Net()
    net.speaking = speaking
    net.run(20.0)
    net.up = {SECOND}
    died = net.now
    net.run(WEAK_AFTER_S + 3.0)
    assert net.ice.selected == SECOND
    nominated = [at for at, nominates in net.asked[SECOND] if nominates]
    assert nominated[0] - died <= WEAK_AFTER_S + 0.2
    assert net.ice.moves == 1


def test_a_selected_pair_that_answers_is_not_left_because_nobody_speaks() -> None:
    net = Net()
    net.run(60.0)
    assert (net.ice.selected, net.ice.moves) == (FIRST, 0)


def test_whoever_comes_back_is_not_returned_to() -> None:
    net = Net()
    net.run(5.0)
    net.up = {SECOND}
    net.run(10.0)
    net.up = {FIRST, SECOND}
    net.run(30.0)
    assert (net.ice.selected, net.ice.moves) == (SECOND, 1)


def test_consent_is_lost_when_no_pair_is_left() -> None:
    net = Net()
    net.run(5.0)
    net.up = set()
    net.run(CONSENT_LOST_S - 6.0)
    assert not net.ice.consent_lost(net.now)
    net.run(12.0)
    assert net.ice.consent_lost(net.now)


def test_what_comes_from_elsewhere_is_not_answered() -> None:
    net = Net()
    net.run(1.0)
    check = stun.binding_request(b"mine:theirs", b"my-password-of-24-chars!", controlled=1)
    assert net.ice.receive(check, FIRST, net.now)
    assert net.ice.receive(check, SECOND, net.now)
    assert net.ice.receive(check, flow.pack("203.0.113.66", 3478), net.now) is None


def test_one_candidate_is_nominated_by_the_first_check() -> None:
    net = Net(FIRST)
    net.run(20.0)
    assert all(nominates for _, nominates in net.asked[FIRST])
    assert [round(at - 10.0, 3) for at, _ in net.asked[FIRST]] == [0.0, 2.5, 5.0, 7.5, 10.0, 12.5, 15.0, 17.5]
