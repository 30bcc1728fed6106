"""OpenAI's own client for Python, as it is, against an edge."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
from openai.types.realtime import RealtimeServerEvent
from signaling_edge import a_fake, until_connected
from waiting import eventually


async def test_it_connects_hears_of_its_session_and_sends_events(tmp_path: Path) -> None:
    async with a_fake(tmp_path) as (edge, fake):
        await until_connected(edge, fake)
        async with (
            openai.AsyncOpenAI(api_key="correct horse", base_url=f"{edge.url}/v1", max_retries=0) as client,
            client.realtime.connect(model="parrot") as connection,
        ):
            created: RealtimeServerEvent = await connection.recv()
            assert created.type == "session.created"
            assert fake.said["session.open"][-1]["agent"] == "parrot"
            await connection.session.update(session={"type": "realtime", "instructions": "sing"})
            (sealed,) = fake.placed_by
            await eventually(lambda: fake.events.get(sealed))
            assert "session.update" in fake.events[sealed][0]
        await eventually(lambda: not fake.placed_by)


async def test_it_makes_client_secrets_and_places_and_ends_calls(tmp_path: Path) -> None:
    async with (
        a_fake(tmp_path) as (edge, fake),
        openai.AsyncOpenAI(api_key="correct horse", base_url=f"{edge.url}/v1", max_retries=0) as client,
    ):
        secret = await client.realtime.client_secrets.create(session={"type": "realtime", "model": "parrot"})
        assert secret.value.startswith("ek_")
        placed = await client.with_options(api_key=secret.value).realtime.calls.with_raw_response.create(sdp="v=0\r\n")
        assert placed.status_code == 201
        assert fake.said["session.offer"][-1]["agent"] == "parrot"
        await client.realtime.calls.hangup(placed.headers["Location"].rpartition("/")[2])
        assert fake.sessions == 0
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.with_options(api_key="wrong").realtime.calls.hangup("rtc_x")
        assert refused.value.code == "invalid_api_key"
