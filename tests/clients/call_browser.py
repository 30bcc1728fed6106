"""A browser without any package, its page ``call.js``: ``call_browser.py URL TOKEN chromium|firefox OPTIONS...``, one
page after the other, options as JSON as ``call`` there takes them; a line of JSON for each. Both browsers are Debian's
and headless; Playwright drives the one, WebDriver BiDi the other."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import async_playwright

HERE = Path(__file__).parent
CHROMIUM, FIREFOX = "/usr/bin/chromium", "/usr/bin/firefox-esr"
_SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
_PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.search.update": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "media.devices.insecure.enabled": True,
    "media.getusermedia.insecure.enabled": True,
    "media.gmp-manager.updateEnabled": False,
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,
    "media.peerconnection.ice.loopback": True,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}


def script(url: str, token: str, options: dict[str, Any]) -> str:
    """An expression whose value is the result of the call, as JSON."""
    module = (HERE / "conversation.mjs").read_text().replace("export ", "")
    conversation = f"const conversation = (() => {{ {module}; return {{ Events, converse, place }}; }})();"
    arguments = ", ".join(map(json.dumps, (url, token, options)))
    page = (HERE / "call.js").read_text()
    return f"(async () => {{ {conversation}\n{page}\nreturn JSON.stringify(await call({arguments})); }})()"


async def with_chromium(page_url: str, expressions: Iterable[str]) -> AsyncIterator[str]:
    async with async_playwright() as playwright:
        switches = [*_SWITCHES, f"--unsafely-treat-insecure-origin-as-secure={page_url}"]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=switches)
        try:
            for expression in expressions:
                page = await browser.new_page()
                await page.goto(page_url + "/healthz")
                yield await page.evaluate(expression)
                await page.close()
        finally:
            await browser.close()


class Bidi:
    """The part of WebDriver BiDi that one page needs."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._id = 0

    async def __call__(self, method: str, **params: Any) -> Any:
        self._id += 1
        await self._socket.send_json({"id": self._id, "method": method, "params": params})
        while True:
            said = await self._socket.receive_json()
            if said.get("id") != self._id:
                continue  # an event
            if said["type"] == "error":
                raise RuntimeError(f"{method}: {said['message']}")
            return said["result"]


async def with_firefox(page_url: str, expressions: Iterable[str]) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory() as profile:
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _PREFERENCES.items())
        Path(profile, "user.js").write_text("".join(lines))
        argv = [FIREFOX, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"]
        browser = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE, env={"HOME": profile})
        assert browser.stderr is not None
        try:
            address = ""
            async for line in browser.stderr:
                if b"WebDriver BiDi listening on" in line:
                    address = line.decode().split()[-1]
                    break
            async with aiohttp.ClientSession() as http, http.ws_connect(f"{address}/session") as socket:
                draining = asyncio.create_task(browser.stderr.read())
                bidi = Bidi(socket)
                await bidi("session.new", capabilities={})
                context = (await bidi("browsingContext.getTree"))["contexts"][0]["context"]
                target = {"context": context}
                for expression in expressions:
                    await bidi("browsingContext.navigate", context=context, url=page_url + "/healthz", wait="complete")
                    said = await bidi("script.evaluate", expression=expression, target=target, awaitPromise=True)
                    if said["type"] == "exception":
                        raise RuntimeError(said["exceptionDetails"]["text"])
                    yield said["result"]["value"]
                draining.cancel()
        finally:
            browser.terminate()
            await browser.wait()


async def main(url: str, token: str, browser: str, *options: str) -> None:
    drive = {"chromium": with_chromium, "firefox": with_firefox}[browser]
    async with asyncio.timeout(100):
        async for said in drive(url, (script(url, token, json.loads(each)) for each in options)):
            print(said, flush=True)


asyncio.run(main(*sys.argv[1:]))
