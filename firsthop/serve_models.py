"""The command ``firsthop serve-models``: the small models as a server of OpenAI's HTTP API."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import click
from aiohttp import web

from edge.signaling.connection import Connection
from edge.signaling.listener import Listener, connections_tally
from firsthop.options import config_option
from runtime import logs
from runtime.address import Address
from runtime.config import Config, load
from runtime.errors import ConfigError, bind_trouble
from transceiver.engine import Engine, EngineError, weights
from transceiver.engine.client import Client
from transceiver.engine.web import app_of
from wire.exposure import exposure

__all__ = ["serve_models", "served"]

_LEAST_KEY = 16  # characters
_LOOPBACK = ("127.0.0.1", "::1")
_BACKLOG = 128
_MOST_CONNECTIONS, _MOST_OF_ONE = 512, 256  # in all, and from one address
_GOODBYE_S = 3.0


@click.command("serve-models")
@config_option
@click.option("--listen", default="127.0.0.1:8000", show_default=True, help="Where to serve HTTP.")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    help="The file with the bearer token that clients must have; only on loopback it may be left out.",
)
def serve_models(config: Path | None, listen: str, key_file: Path | None) -> None:
    """Serve the small models by OpenAI's HTTP API: /v1/audio/transcriptions, /v1/chat/completions, /v1/audio/speech.

    The agent pipeline can be pointed at it, and so can anything that speaks that API. Models are computed in the
    process that all calls of this host share, by [agents.engine]. Ctrl-C and SIGTERM end it.
    """
    try:
        address = _address(listen)
        key = _key(key_file)
        if key is None and address.host not in _LOOPBACK:
            raise ConfigError("--key-file: what others can reach needs a key")
        settings = load(config)
        if why := weights.trouble(memory=False):
            raise ConfigError(why)
        asyncio.run(_serve(settings, address, key))
    except (ConfigError, OSError, EngineError) as e:
        click.echo(f"firsthop: {e}", err=True)
        sys.exit(2)


def _address(listen: str) -> Address:
    try:
        return Address(listen)
    except ValueError as e:
        raise ConfigError(f"--listen: {e}") from None


def _key(file: Path | None) -> bytes | None:
    """The key in that file. Raises ConfigError where it is none, or where others can read it."""
    if file is None:
        return None
    try:
        key = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"--key-file: {file}: {getattr(e, 'strerror', None) or e}") from None
    if why := exposure(file):
        raise ConfigError(f"--key-file: {why}")
    if len(key) < _LEAST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"--key-file: {file}: a key has {_LEAST_KEY} printable characters or more, and no space")
    return key.encode()


async def _serve(settings: Config, address: Address, key: bytes | None) -> None:
    logs.configure(settings.log.level, settings.log.format, process="serve-models")
    engine = Client(settings.agents.engine)
    try:
        await engine.start()
        try:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            listening = socket.create_server(address.pair, family=family, backlog=_BACKLOG)
        except OSError as e:
            raise ConfigError(f"--listen: {address}: {bind_trouble(e)}") from None
        async with served(engine, key, listening):
            logs.get().info("serving models", at=f"http://{address}/v1", key=key is not None)
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(each, ended.set)
            await ended.wait()
    finally:
        await engine.close()


@asynccontextmanager
async def served(engine: Engine, key: bytes | None, listening: socket.socket) -> AsyncIterator[None]:
    """Serves ``engine`` to whoever connects to ``listening``, within the bounds that callers of an edge have on what
    they leave half-done. Without a ``key`` anyone may ask."""
    runner = web.AppRunner(app_of(engine, key), handler_cancellation=True, shutdown_timeout=_GOODBYE_S)
    await runner.setup()
    assert runner.server is not None
    listener = Listener(
        listening,
        partial(Connection, runner.server),
        lambda: None,
        most=_MOST_CONNECTIONS,
        most_of_one=_MOST_OF_ONE,
        counts=connections_tally(),
    )
    try:
        yield
    finally:
        await listener.close()
        listening.close()
        await runner.cleanup()
