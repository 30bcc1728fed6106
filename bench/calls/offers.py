"""The offer to each server, in the form that it takes; all of them give an SDP answer."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

__all__ = ["OFFERS", "OfferRefused", "Offering"]

Where = dict[str, str]
Offering = Callable[[aiohttp.ClientSession, Where, str], Awaitable[str]]


class OfferRefused(Exception):
    """The server gave no answer; the text says what it said instead."""


async def firsthop(http: aiohttp.ClientSession, where: Where, sdp: str) -> str:
    """``POST /v1/realtime/calls``."""
    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {where['token']}"}
    url = f"{where['url']}/v1/realtime/calls?model={where['agent']}"
    async with http.post(url, data=sdp.encode(), headers=headers) as response:
        text = await response.text()
        if response.status != 201:
            raise OfferRefused(f"HTTP {response.status}: {text}")
        return text


async def aiortc(http: aiohttp.ClientSession, where: Where, sdp: str) -> str:
    """``POST /offer`` with the description as JSON, as aiortc's own example server takes it."""
    answer = await _json(http, f"{where['url']}/offer", {"sdp": sdp, "type": "offer"})
    return str(answer["sdp"])


async def fastrtc(http: aiohttp.ClientSession, where: Where, sdp: str) -> str:
    """``POST /webrtc/offer``."""
    body = {"sdp": sdp, "type": "offer", "webrtc_id": secrets.token_hex(8)}
    answer = await _json(http, f"{where['url']}/webrtc/offer", body)
    if "sdp" not in answer:
        raise OfferRefused(json.dumps(answer))
    return str(answer["sdp"])


async def janus(http: aiohttp.ClientSession, where: Where, sdp: str) -> str:
    """A session, a handle of the EchoTest, a message with the offer; the answer comes by long poll."""
    url = f"{where['url']}/janus"
    session = (await _asked(http, url, {"janus": "create"}))["data"]["id"]
    handle = (await _asked(http, f"{url}/{session}", {"janus": "attach", "plugin": "janus.plugin.echotest"}))["data"]
    body = {"audio": True, "video": False}
    message = {"janus": "message", "body": body, "jsep": {"type": "offer", "sdp": sdp}}
    await _asked(http, f"{url}/{session}/{handle['id']}", message)
    while True:
        async with http.get(f"{url}/{session}", params={"maxev": "1"}) as response:
            event = await response.json()
        if jsep := event.get("jsep"):
            return str(jsep["sdp"])
        if event.get("janus") in ("error", "timeout", "hangup"):
            raise OfferRefused(json.dumps(event))
        await asyncio.sleep(0)


OFFERS: dict[str, Offering] = {"firsthop": firsthop, "aiortc": aiortc, "fastrtc": fastrtc, "janus": janus}


async def _asked(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = await _json(http, url, {**body, "transaction": secrets.token_hex(6)})
    if reply.get("janus") not in ("success", "ack"):
        raise OfferRefused(json.dumps(reply))
    return reply


async def _json(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    async with http.post(url, json=body) as response:
        if response.status != 200:
            raise OfferRefused(f"HTTP {response.status}: {await response.text()}")
        reply: dict[str, Any] = await response.json()
        return reply
