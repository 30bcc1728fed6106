"""A transceiver's reports of itself: the turns that wait in its agents, and the GPUs of its host."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from signaling_run import Signaling
from waiting import eventually, until

from runtime.config import Config
from runtime.families import media
from runtime.metrics import Levels
from runtime.tracing.spans import NOTHING
from transceiver import agents
from transceiver.agents import Base, Response
from transceiver.gpus import Gpus
from transceiver.reporting import Reporting
from transceiver.talk.agent_host import host
from transceiver.turns import TURNS, Turns, Waiting
from wire.report import Gpu


def a_config(**settings: Any) -> Config:
    return Config(transceiver={"id": 5, "endpoint": "tcp://0.0.0.0:7400", **settings})


def test_a_report_says_who_where_and_which_models() -> None:
    more = {"advertise": "tcp://192.0.2.7:7400", "region": "eu", "zone": "a", "max_sessions": 30}
    gpu = Gpu("H100", 10, 20, 0.5)
    report = Reporting(a_config(**more), lambda: (gpu,)).make(10.0, sessions=3, room=lambda: {"parrot": 9}, lag_ms=1.5)
    assert (report.id, report.endpoint, report.region, report.zone) == (5, "tcp://192.0.2.7:7400", "eu", "a")
    assert (report.sessions, report.most, report.lag_ms, report.gpus) == (3, 30, 1.5, (gpu,))
    models = {model.name: model for model in report.models}
    assert set(models) == set(agents.versions()) >= {"parrot", "echo", "loopback"}
    assert (models["parrot"].room, models["echo"].room) == (9, None)
    assert models["parrot"].version == agents.versions()["parrot"] != ""
    assert not report.draining


def test_a_report_says_what_is_asked_of_the_small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Levels(media.ENGINE_WAITING)
    monkeypatch.setattr("transceiver.reporting.ENGINE_WAITING", waiting)
    reporting = Reporting(a_config())
    assert reporting.make(10.0, sessions=0).engine == 0
    for part, count in (("ears", 2), ("mind", 3), ("ears", -1)):
        waiting.add(part, count)
    assert reporting.make(11.0, sessions=0).engine == 4


def test_reports_are_numbered_and_one_serves_all_who_ask_at_once() -> None:
    reporting = Reporting(a_config())
    first = reporting.make(10.0, sessions=0)
    assert reporting.make(10.1, sessions=1) is first
    second = reporting.make(11.0, sessions=1)
    assert (second.number, second.sessions, second.generation) == (first.number + 1, 1, first.generation)
    assert reporting.make(11.1, sessions=1, draining=True).draining, "which nobody may miss"
    assert Reporting(a_config()).make(10.0, sessions=0).generation != first.generation


async def test_health_brings_the_report(tmp_path: Path) -> None:
    signaling = Signaling(tmp_path)
    try:
        await signaling.send("health", request=1)
        told = (await signaling.hears("health"))["report"]
        assert (told["id"], told["number"], told["most"]) == (1, 1, 3)
        assert {model["name"]: model["version"] for model in told["models"]} == agents.versions()
    finally:
        await signaling.close()


def test_turns_wait_until_they_are_heard_or_over() -> None:
    turns = Turns()
    assert turns.waiting("slow", 0.0) == Waiting(0, None)
    first, second, third = (turns.asked("slow", at) for at in (10.0, 10.0, 11.0))
    assert turns.waiting("slow", 12.0) == Waiting(3, None)
    first.heard(10.5)
    first.heard(13.0)
    second.over()
    second.heard(13.0)
    assert turns.waiting("slow", 13.0) == Waiting(1, 500.0)
    third.heard(12.5)
    assert turns.waiting("slow", 13.0) == Waiting(0, 1000.0)
    assert turns.waiting("slow", 72.0) == Waiting(0, 1500.0), "the first is long ago"
    assert turns.waiting("other", 13.0) == Waiting(0, None)
    (heard,) = turns.first_audio.collect()
    found = {s.name.rpartition("_")[2]: s.value for s in heard.samples if s.labels == {"agent": "slow"}}
    assert found == {"count": 2, "sum": 0.5 + 1.5}


class Making:
    """A response of the conversation's, which takes what it is given."""

    settled = cancelled = in_events = False
    items: tuple[object, ...] = ()
    settings = None

    def __init__(self, id_: str) -> None:
        self.id = id_

    def audio(self, *_: object) -> None: ...

    text = done = fail = audio


class Slow(Base):
    """Answers when it is told to."""

    version = 2
    asked: list[Response]

    def __init__(self, line: Any) -> None:
        super().__init__(line)
        Slow.asked = []

    def respond(self, response: Response) -> None:
        Slow.asked.append(response)


def _waiting() -> int:
    return TURNS.waiting("slow-agent", 0.0).turns


async def test_what_an_agent_has_not_answered_waits() -> None:
    it = host(Slow, SimpleNamespace(span=NOTHING, config=Config().agents), lambda why: None, "slow-agent")  # type: ignore[arg-type]
    makings: list[Any] = [Making(str(i)) for i in range(5)]
    for making in makings:
        it.respond(making)
    assert _waiting() == 5
    Slow.asked[0].audio(b"")
    assert _waiting() == 5, "nothing was said"
    Slow.asked[0].audio(b"\0\0")
    Slow.asked[1].text("hm")
    assert _waiting() == 3
    Slow.asked[2].fail("no")
    assert _waiting() == 2
    it.cancelled(makings[3])
    assert _waiting() == 1
    it.close()
    assert _waiting() == 0


async def test_an_agent_in_a_thread_is_heard_too() -> None:
    class Threaded(Slow):
        runs = "thread"

        def respond(self, response: Response) -> None:
            response.audio(b"\0\0")

    it = host(Threaded, SimpleNamespace(span=NOTHING, config=Config().agents), lambda why: None, "threaded")  # type: ignore[arg-type]
    making: Any = Making("1")
    it.respond(making)
    await eventually(lambda: TURNS.waiting("threaded", asyncio.get_running_loop().time()).latency_ms is not None)
    assert TURNS.waiting("threaded", 0.0).turns == 0
    it.close()
    await it.joined()


class Nvml:
    """The library as ``pynvml`` gives it, with two GPUs, one of them without figures."""

    def __init__(self) -> None:
        self.broken = False
        self.inits = 0

    def nvmlInit(self) -> None:
        self.inits += 1

    def nvmlDeviceGetCount(self) -> int:
        if self.broken:
            raise RuntimeError("driver reloaded")
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> object:
        return b"One" if handle else "NVIDIA H100"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> object:
        if handle:
            raise RuntimeError("not supported")
        return SimpleNamespace(used=3 << 20, total=80 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> object:
        if handle:
            raise RuntimeError("not supported")
        return SimpleNamespace(gpu=37)


def test_gpus_are_read_and_what_they_do_not_tell_is_zero() -> None:
    nvml = Nvml()
    gpus = Gpus(nvml, every_s=0.01)
    assert gpus.now == ()
    gpus.start()
    try:
        expected = (Gpu("NVIDIA H100", 3, 80 << 10, 0.37), Gpu("One"))
        until(lambda: gpus.now == expected)
        nvml.broken = True
        until(lambda: gpus.now == ())
        nvml.broken = False
        until(lambda: gpus.now == expected)
        assert nvml.inits == 1
    finally:
        gpus.close()


@pytest.mark.parametrize("what", ["no library", "no driver"])
def test_a_host_without_a_driver_has_no_gpus_and_no_thread(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise (ImportError if what == "no library" else RuntimeError)("none here")

    monkeypatch.setattr("transceiver.gpus.import_module", none)
    gpus = Gpus(None if what == "no library" else SimpleNamespace(nvmlInit=none))
    gpus.start()
    until(lambda: not gpus.running)
    assert gpus.now == ()
