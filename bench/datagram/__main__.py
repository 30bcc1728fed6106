"""The benchmark of a datagram: rounds of frames by turns with those of its peer, and the quickest of each. That leaves
the reports out, which a call sends once a second.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

from bench.datagram.bytecodes import Bytecodes
from bench.datagram.calls import House
from bench.datagram.peer import Aiortc
from bench.datagram.time_lapse import TimeLapse
from bench.harness.conditions import conditions
from bench.harness.document import results_file, save
from caller.voice import generated
from rtc.frame import FRAME_S
from transceiver.agents import echo, loopback

AGENTS = {"passed on": echo.Agent, "transcoded": loopback.Agent}
_FRAMES = 2  # a round
_WARM_UP = 25


def main() -> None:
    """Measures, and prints microseconds a frame."""
    parser = argparse.ArgumentParser(prog="bench.datagram", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--batch", type=int, default=4, help="datagrams in a message of the link's")
    parser.add_argument("--rounds", type=int, default=40, help=f"of {_FRAMES} frames of every call")
    parser.add_argument("--count", choices=AGENTS, help="count the bytecodes of this kind's frames instead")
    parser.add_argument("--json", type=Path, default=results_file("datagram"))
    options = parser.parse_args()
    if options.count:
        counted = Bytecodes()
        measure(options.count, options.calls, options.rounds, options.batch, counted)
        print(counted.table(_FRAMES * options.calls * options.rounds, 40))
        return
    kinds = {kind: measure(kind, options.calls, options.rounds, options.batch) for kind in AGENTS}
    save({"run": conditions(calls=options.calls, batch=options.batch, rounds=options.rounds), **kinds}, options.json)
    print(markdown(kinds))


def markdown(kinds: dict[str, dict[str, Any]]) -> str:
    """The figures as a table."""
    lines = ["| call | µs a frame | aiortc's classes | ratio |", "|---|---|---|---|"]
    for kind, row in kinds.items():
        lines.append(f"| {kind} | {row['us']:.1f} | {row['peer_us']:.1f} | {row['us'] / row['peer_us']:.2f} |")
    return "\n".join(lines)


def measure(kind: str, calls: int, rounds: int, batch: int, counted: Bytecodes | None = None) -> dict[str, float]:
    """Microseconds of CPU for a frame in and one out, of a call of that kind (``us``) and of the peer (``peer_us``)."""
    lapse = TimeLapse()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(lapse)) as runner:
        return runner.run(_measured(kind, calls, rounds, batch, lapse, counted))


async def _measured(
    kind: str, calls: int, rounds: int, batch: int, lapse: TimeLapse, counted: Bytecodes | None
) -> dict[str, float]:
    voice = generated(3.0).frames
    house, peer = House(AGENTS[kind]), Aiortc()
    await house.call(calls)
    count = _FRAMES * calls
    ours, theirs, came_back = [], [], 0
    with lapse.clock():
        for number in range(-_WARM_UP // _FRAMES, rounds):
            payloads = [voice[(number * _FRAMES + n) % len(voice)] for n in range(_FRAMES)]
            took_s, media = await _round(house, lapse, payloads, batch, counted if number >= 0 else None)
            packets = [peer.spoken(payload) for payload in payloads for _ in house.calls]
            began = time.thread_time()
            for packet in packets:
                await peer.take(packet, round(1000 * lapse.now))
            if number >= 0:
                came_back += media
                ours.append(took_s)
                theirs.append(time.thread_time() - began)
    await house.close()
    assert came_back > 0.8 * rounds * count, f"{came_back} of {rounds * count} frames came back"
    return {"us": 1e6 * min(ours) / count, "peer_us": 1e6 * min(theirs) / count}


async def _round(
    house: House, lapse: TimeLapse, payloads: list[bytes], batch: int, counted: Bytecodes | None
) -> tuple[float, int]:
    """Seconds of CPU that these frames of every caller take, and the datagrams of media that come of them."""
    spoken = [message for payload in payloads for message in house.spoken(payload, batch)]
    messages, media = iter(spoken), 0
    over = asyncio.get_running_loop().create_future()

    def next_event() -> None:
        nonlocal media
        media += house.deliver()
        lapse.now += FRAME_S * len(payloads) / len(spoken)
        if (message := next(messages, None)) is not None:
            house.say(message)
        elif not over.done():
            over.set_result(None)

    before, lapse.next_event = lapse.busy_s, next_event
    if counted is not None:
        counted.enable()
    await over
    if counted is not None:
        counted.disable()
    lapse.next_event = None
    return lapse.busy_s - before, media + house.deliver()


if __name__ == "__main__":
    main()
