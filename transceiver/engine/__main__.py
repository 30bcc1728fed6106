"""``python -m transceiver.engine CONFIG LOCK``: the engine's process, as its clients start it. ``CONFIG`` is section
``[agents.engine]`` as JSON, ``LOCK`` the number of the locked descriptor that it inherits."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
from contextlib import suppress
from pathlib import Path

from runtime import config, logs
from runtime.process import set_name, set_nice, set_session_nice
from transceiver.engine import starting, weights
from transceiver.engine.loaded import Loaded
from transceiver.engine.server import Server

_NICE = 10  # media goes first
_OOM_SCORE = "500"  # of 1000: without memory the kernel ends this before a process with calls
_WELL_S = 10.0
_STANDS_S, _LOADS_S = 30.0, 120.0


def _begin() -> None:
    """Behind all media, and on any core: who started this may have one alone, and go first."""
    set_nice(_NICE)
    set_session_nice(_NICE)  # it is started as a session of its own
    with suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    os.umask(0o077)
    set_name("firsthop-models")


async def _serve(about: config.Engine, models: Loaded, lock: int, parent: int) -> None:
    def ready() -> None:
        logs.get().info("models loaded", on_gpu=models.cuda)
        asyncio.get_running_loop().call_later(_WELL_S, starting.running_well, lock)

    alive = asyncio.create_task(_alive())
    await Server(models, idle_s=about.idle_s, parent=parent).serve(starting.socket_of(about.run), ready)
    alive.cancel()


async def _alive() -> None:
    """Has this process end when its loop stands still: a library may hang and keep Python's lock, which this clock does
    not need."""
    with suppress(RuntimeError):  # there is nowhere to say so
        while True:
            faulthandler.dump_traceback_later(_STANDS_S, exit=True)
            await asyncio.sleep(1)


def main(about: config.Engine, lock: int) -> int:
    """Runs until nobody needs it. Returns an exit code."""
    parent = os.getppid()
    _begin()
    logs.configure("info", "auto", process="models")
    with suppress(RuntimeError):
        faulthandler.dump_traceback_later(_LOADS_S, exit=True)
    why = weights.trouble()
    try:
        models = Loaded(about) if why is None else None
    except Exception as e:  # whatever these libraries raise
        why = f"the models did not load: {e!r}"[:300]
    if models is None or why is not None:
        logs.get().error("the models cannot be used", why=why)
        starting.failed(lock, why or "")
        return 2
    asyncio.run(_serve(about, models, lock, parent))
    starting.running_well(lock)
    return 0


if __name__ == "__main__":
    # Threads that hang in a library are not waited for.
    os._exit(main(config.Engine.model_validate_json(sys.argv[1]), int(sys.argv[2])))
