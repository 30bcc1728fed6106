"""The server behind the page on which a person talks to an agent.

It serves the page, and passes its calls on to the edge's signaling with the bearer token added, so that the
token never reaches a browser. Whoever can talk to this server can make calls: it listens on this machine only and
answers only pages that came from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
import click
from aiohttp import web

__all__ = ["application", "serve"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# An offer is 2 to 8 kB; a browser with every codec and candidate stays below 20.
MAX_BODY_BYTES = 64 * 1024
EDGE_TIMEOUT_S = 15.0
FILES = Path(__file__).parent
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
KEPT = ("Content-Type", "Location", "Retry-After")
MODULES = (
    *("call", "composer", "conversation", "dom", "ear", "ears", "figures", "keys", "latency", "log", "page", "picture"),
    *("problems", "session", "setup", "stats", "talk", "tape", "transcript", "turns"),
)
SERVED = (*(f"{name}.js" for name in MODULES), "page.css", "talk.css")
STATIC_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def application(edge: str, token: str, agents: Sequence[str], *, names: Sequence[str] = ()) -> web.Application:
    """The page for the edge whose signaling answers at the URL ``edge``. ``names`` are host names under which it
    may be asked for besides those of this machine itself."""
    allowed = (*LOCAL_NAMES, *names)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        port = request.transport.get_extra_info("sockname")[1] if request.transport else None
        origins = {f"http://{name}:{port}" for name in allowed}
        if port == 80:
            origins |= {f"http://{name}" for name in allowed}
        # A site that points its own name at 127.0.0.1 (DNS rebinding) still sends that name.
        if f"http://{request.host}" not in origins:
            return _error(403, f"open this page as http://localhost:{port}", "wrong_host")
        origin = request.headers.get("Origin")
        if request.method not in ("GET", "HEAD") and origin is not None and origin not in origins:
            return _error(403, "calls are made from this page only", "wrong_origin")
        try:
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return _error(413, f"the offer is larger than {MAX_BODY_BYTES} bytes", "body_too_large")
        except web.HTTPException as e:
            return _error(e.status, e.reason, "no_such_page")

    async def with_session(app: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=EDGE_TIMEOUT_S)
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as app[session]:
            yield

    async def pass_on(request: web.Request) -> web.Response:
        # An absent type is not to become aiohttp's application/octet-stream.
        content = {"Content-Type": request.headers["Content-Type"]} if "Content-Type" in request.headers else {}
        body = await request.read()
        try:
            async with request.app[session].request(
                request.method,
                edge.rstrip("/") + str(request.rel_url),
                data=body or None,
                headers=content,
                allow_redirects=False,
            ) as answer:
                kept = {k: v for k, v in answer.headers.items() if k in KEPT or k.upper().startswith("X-")}
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)
        except (aiohttp.ClientError, TimeoutError) as e:
            why = str(e) or f"no answer within {EDGE_TIMEOUT_S:.0f} s"
            return _error(502, f"the edge at {edge} cannot be reached: {why}", "edge_unreachable")

    session = web.AppKey("session", aiohttp.ClientSession)
    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY_BYTES)
    app.cleanup_ctx.append(with_session)
    app.router.add_get("/", _file("page.html"))
    for name in SERVED:
        app.router.add_get(f"/{name}", _file(name))
    app.router.add_get("/agents", _json(list(agents)))
    app.router.add_get("/healthz", _json({"status": "ok"}))
    app.router.add_get("/v1/ice-servers", pass_on)
    app.router.add_post("/v1/realtime/calls", pass_on)
    app.router.add_post(r"/v1/realtime/calls/{call:[\w-]+}/hangup", pass_on)
    app.router.add_delete(r"/v1/realtime/calls/{call:[\w-]+}", pass_on)
    return app


async def serve(
    edge: str,
    token: str,
    agents: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serves the page until it is cancelled; ``ready`` is called when it is served. Raises OSError where ``host`` and
    ``port`` cannot be listened on."""
    runner = web.AppRunner(application(edge, token, agents, names=[host]), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        ready()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _file(name: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(FILES / name, headers=STATIC_HEADERS)

    return handler


def _json(value: object) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response(value)

    return handler


def _error(status: int, message: str, code: str) -> web.Response:
    error = {"message": message, "type": "demo_page_error", "code": code, "param": None}
    return web.json_response({"error": error}, status=status)


async def _until_signal(serving: Awaitable[None]) -> None:
    task = asyncio.ensure_future(serving)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


@click.command()
@click.option("--edge", required=True, help="URL of the edge's signaling, such as http://10.77.0.2:8080.")
@click.option("--token-file", required=True, type=click.Path(path_type=Path), help="File that holds the bearer token.")
@click.option("--agents", default="parrot", show_default=True, help="Names to choose from, with commas between.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, help="Port to listen on.")
def main(edge: str, token_file: Path, agents: str, host: str, port: int) -> None:
    """Serves the page where a person talks to an agent."""
    try:
        token = token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise click.ClickException(f"{token_file}: {e}: name the file that holds the edge's bearer token") from None
    if not token or not token.isascii() or not token.isprintable():
        raise click.ClickException(f"{token_file}: holds no token (one line of printable ASCII)")
    names = [name.strip() for name in agents.split(",") if name.strip()]
    if not names:
        raise click.ClickException("--agents: names at least one")

    def ready() -> None:
        click.echo(f"http://localhost:{port}")

    try:
        asyncio.run(_until_signal(serve(edge, token, names, host=host, port=port, ready=ready)))
    except OSError as e:
        raise click.ClickException(f"cannot listen on {host} port {port}: {e.strerror} (try another --port)") from None


if __name__ == "__main__":
    main()
