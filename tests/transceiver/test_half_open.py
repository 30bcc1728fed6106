"""Calls that have not connected, and ICE restarts, at a real transceiver: few of one key's, and soon over."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from signaling_run import ONE, Signaling
from waiting import eventually
from wiring import Said

from caller.offer import Offer
from rtc.dtls.secure import Certificate
from rtc.ice.lite import NEVER_CAME_S
from transceiver.backlog import Backlog


@pytest.fixture
async def signaling(tmp_path: Path) -> AsyncIterator[Signaling]:
    ends = Signaling(tmp_path, max_sessions=40)
    yield ends
    await ends.close()


async def place(signaling: Signaling, **fields: Any) -> Said:
    """Places a call. Returns the answer to the offer, or the refusal."""
    offer = Offer(Certificate.generateCertificate().fingerprint).sdp()
    media = ["192.0.2.1", 3478]
    await signaling.send("session.offer", request=1, offer=offer, agent="echo", media=media, **fields)
    kinds = ("session.answer", "session.refused")

    def said() -> list[Said]:
        return [message for message in signaling.told[b"edge/signaling-0"] if message.type in kinds]

    await eventually(lambda: bool(signaling.drain(b"edge/signaling-0")) and bool(said()))
    message = said()[0]
    signaling.told[b"edge/signaling-0"].clear()
    return message


async def code(signaling: Signaling, **fields: Any) -> str:
    message = await place(signaling, **fields)
    return str(message.fields.get("code", ""))


async def test_one_ephemeral_key_holds_few_places_that_nobody_comes_for(signaling: Signaling) -> None:
    codes = [await code(signaling, owner="key", holder="ek_1") for _ in range(10)]
    assert codes == [""] * 4 + ["rate_limit_exceeded"] * 6
    assert await code(signaling, owner="key", holder="ek_2") == ""
    assert await code(signaling, owner="key") == ""


async def test_one_account_leaves_places_for_another(signaling: Signaling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transceiver.places.GRACE_S", 600.0)  # however long it takes to place them
    codes = [await code(signaling, owner="key") for _ in range(30)]
    assert codes == [""] * 20 + ["full"] * 10
    assert await code(signaling, owner="another") == ""


async def offers(signaling: Signaling, *texts: str) -> None:
    for number, text in enumerate(texts, 1):
        media = ["192.0.2.1", 3478]
        await signaling.send("session.offer", request=number, offer=text, agent="echo", media=media, owner="key")


async def test_an_offer_is_not_even_read_where_there_is_no_room(tmp_path: Path) -> None:
    full = Signaling(tmp_path, max_sessions=1)
    try:
        assert await code(full, owner="key") == ""
        await offers(full, "no SDP")
        assert (await full.hears("session.refused"))["code"] == "full"
    finally:
        await full.close()


async def test_offers_that_wait_for_their_turn_are_as_many_as_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backlog, "_run", lambda self: None)  # nobody's turn comes
    small = Signaling(tmp_path, max_sessions=2)
    try:
        await offers(small, "no SDP", "no SDP", "no SDP")
        await eventually(lambda: any(message.type == "session.refused" for message in small.drain(ONE)))
        refused = [message for message in small.told[ONE] if message.type == "session.refused"]
        assert [(message.fields["request"], message.fields["code"]) for message in refused] == [(3, "full")]
    finally:
        await small.close()


async def test_places_that_nobody_comes_for_are_soon_free(signaling: Signaling) -> None:
    for _ in range(4):
        assert await code(signaling, owner="key", holder="ek_1") == ""
    for session in signaling.transceiver.held:
        session.sweep(time.monotonic() + NEVER_CAME_S + 1)
    await eventually(lambda: signaling.transceiver.sessions == 0)
    assert await code(signaling, owner="key", holder="ek_1") == ""


async def test_a_session_without_media_takes_a_holder_and_no_half_open_place(signaling: Signaling) -> None:
    for _ in range(6):
        await signaling.send("session.open", request=1, agent="parrot", owner="key", holder="ek_1")
        await signaling.hears("session.opened")
    assert await code(signaling, owner="key", holder="ek_1") == ""


async def test_ice_restarts_are_few(signaling: Signaling) -> None:
    ufrag = (await place(signaling)).fields["ufrag"]
    outcomes = []
    for i in range(30):
        remote = [f"user{i}", "p" * 22]
        await signaling.send("session.ice", request=2, ufrag=ufrag, match="*", remote=remote, media=["192.0.2.1", 3478])
        await eventually(lambda: signaling.drain(b"edge/signaling-0"))
        message = signaling.told[b"edge/signaling-0"].pop()
        outcomes.append(message.fields.get("code", message.type))
    assert outcomes[:5] == ["session.ice"] * 5
    assert 20 <= outcomes.count("rate_limit_exceeded") <= 25
