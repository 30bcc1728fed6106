"""A load balancer before several edges: ``balancer.py <port> <url>...`` passes each request on to one that is ready,
and to the next where that one cannot be reached. It says "ready" when one is. SIGTERM ends it, and then it prints, as
JSON, how many calls got which status."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Never

import aiohttp
from aiohttp import web

_LOOK_EVERY_S = 0.25
_PATIENCE_S = 2.0
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class Balancer:
    """The balancer. Connections are not kept: the next request may have to go to another edge."""

    def __init__(self, urls: list[str], http: aiohttp.ClientSession) -> None:
        self._urls, self._http = urls, http
        self._turns = count()
        self.ready: set[str] = set()
        self.statuses: Counter[str] = Counter()

    async def look(self) -> Never:
        while True:
            for url in self._urls:
                well = False
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with asyncio.timeout(_PATIENCE_S), self._http.get(url + "/readyz") as response:
                        well = response.status == 200
                (self.ready.add if well else self.ready.discard)(url)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def pass_on(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        for url in self._by_turns():
            try:
                async with self._http.request(
                    request.method, url + request.path_qs, data=body, headers=headers
                ) as response:
                    answer = await response.read()
                    kept = {name: v for name, v in response.headers.items() if name.lower() not in _HOP_BY_HOP}
                    return self._counted(request, web.Response(status=response.status, body=answer, headers=kept))
            except aiohttp.ClientConnectorError:
                self.ready.discard(url)  # it was not sent
            except aiohttp.ClientError as e:
                return self._counted(request, web.Response(status=502, text=repr(e)))
        return self._counted(request, web.Response(status=503, text="no edge is ready"))

    def _by_turns(self) -> Iterator[str]:
        ready = [url for url in self._urls if url in self.ready]
        turn = next(self._turns)
        for i in range(len(ready)):
            yield ready[(turn + i) % len(ready)]

    def _counted(self, request: web.Request, response: web.Response) -> web.Response:
        if request.method == "POST" and not request.path.endswith("/hangup"):
            self.statuses[str(response.status)] += 1
        return response


async def main(port: str, *urls: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as http:
        balancer = Balancer(list(urls), http)
        looking = asyncio.create_task(balancer.look())
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{path:.*}", balancer.pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(port)).start()
        while not balancer.ready:  # noqa: ASYNC110  # it is over in a moment
            await asyncio.sleep(_LOOK_EVERY_S)
        print("ready", flush=True)
        await stop.wait()
        looking.cancel()
        await runner.cleanup()
    print(json.dumps(balancer.statuses), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
