"""The words and proofs of the express path between an edge and a transceiver of its host."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import express
from wire.express import Challenge, Claim, ExpressError, Off, Proofs, Reads, Sockets
from wire.keys import ClusterKeys

KEYS = ClusterKeys({1: bytes(16)}, 1, bytes(range(32)))
OTHERS = ClusterKeys({1: bytes(16)}, 1, bytes(32))
CHALLENGE = express.challenge("edge")
CLAIM = Proofs(KEYS, CHALLENGE).claim(5, "here")


@pytest.mark.parametrize(
    "message", [CHALLENGE, CLAIM, Sockets(bytes(32), bytes(32)), Reads(), Off("ended"), Off("off", bytes(32))]
)
def test_a_message_is_read_as_it_was_said(message: express.Message) -> None:
    assert len(message.dump()) <= express.MOST_BYTES
    assert express.read(message.dump()) == message


def test_both_ends_of_one_cluster_believe_each_other() -> None:
    edge, transceiver = Proofs(KEYS, CHALLENGE), Proofs(KEYS, CHALLENGE)
    assert edge.believes(CLAIM)
    assert transceiver.believes_edge(CLAIM, edge.edge(CLAIM))


@pytest.mark.parametrize(
    "changed",
    [
        {"id": 6},
        {"place": "there"},
        {"nonce": bytes(32)},
        {"proof": bytes(32)},
    ],
)
def test_a_claim_that_was_changed_is_not_believed(changed: dict[str, object]) -> None:
    assert not Proofs(KEYS, CHALLENGE).believes(msgspec.structs.replace(CLAIM, **changed))


def test_who_has_other_keys_is_not_believed() -> None:
    assert not Proofs(OTHERS, CHALLENGE).believes(CLAIM)
    assert not Proofs(KEYS, CHALLENGE).believes_edge(CLAIM, Proofs(OTHERS, CHALLENGE).edge(CLAIM))


def test_a_proof_is_of_one_connection_and_one_side() -> None:
    later = Proofs(KEYS, express.challenge("edge"))
    assert not later.believes(CLAIM)
    assert not Proofs(KEYS, msgspec.structs.replace(CHALLENGE, edge="other")).believes(CLAIM)
    # What the transceiver proved is no proof of the edge's.
    assert not Proofs(KEYS, CHALLENGE).believes_edge(CLAIM, CLAIM.proof)


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(said: bytes) -> None:
    try:
        message = express.read(said)
    except ExpressError:
        return
    assert isinstance(message, Challenge | Claim | Sockets | Reads | Off)


@given(st.binary(min_size=1, max_size=3), st.integers(0, 200))
def test_a_message_that_is_damaged_is_read_or_refused(damage: bytes, at: int) -> None:
    said = CLAIM.dump()
    with contextlib.suppress(ExpressError):
        express.read(said[:at] + damage + said[at + len(damage) :])


def test_fields_have_bounds() -> None:
    for made in (
        msgspec.structs.replace(CLAIM, id=1 << 18),
        msgspec.structs.replace(CLAIM, nonce=bytes(31)),
        msgspec.structs.replace(CLAIM, place="x" * 257),
        msgspec.structs.replace(CHALLENGE, version=2),
    ):
        with pytest.raises(ExpressError):
            express.read(made.dump())


def test_a_door_is_named_after_its_edge() -> None:
    assert express.door_of(Path("/run/firsthop"), "edge.1") == Path("/run/firsthop/edge.1.express")
