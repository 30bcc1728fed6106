"""libwebrtc restarts ICE in mid-call by WHIP's PATCH: Debian's Chromium on the lab's client host, through XDP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from browser import OFFERS_TONE, RESTARTS, a_page

from lab.appliance import Appliance
from lab.network import Lab


async def test_a_call_goes_on_through_restarts(lab: Lab, appliance: Appliance, tmp_path: Path) -> None:
    async with a_page(lab, tmp_path, appliance.url, OFFERS_TONE + RESTARTS) as page:

        async def now() -> dict[str, Any]:
            said: dict[str, Any] = await page.evaluate("now()")
            return said

        async def until(condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            async with asyncio.timeout(60):
                while not condition(it := await now()):  # noqa: ASYNC110 - the page has no event for it
                    await asyncio.sleep(0.05)
            return it

        await page.evaluate("(token) => call(token)", appliance.token)
        it = await until(lambda it: it["state"] == "connected" and it["packets"] > 50)
        for _ in range(2):
            status, ufrag = await page.evaluate("restart()")
            assert status == 200
            await until(lambda it, ufrag=ufrag: it["ufrag"] == ufrag and it["answered"] > 0)
            more = it["packets"] + 100
            it = await until(lambda it, more=more: it["state"] == "connected" and it["packets"] > more)
        print(it)
        assert it["lost"] == 0
        # The call is still known by the name it was given at first.
        assert await page.evaluate("fetch(where, {method: 'DELETE', headers}).then((said) => said.status)") == 200
