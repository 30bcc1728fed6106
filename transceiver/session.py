"""One call, from the offer to the end: a transport to the client, its media, and the talk that they are for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from aiortc import RTCDataChannel

from rtc.dtls.secure import Certificate
from rtc.ice.lite import CONSENT_S
from rtc.pacer import Pacer
from rtc.sdp import answer as sdp
from runtime import logs
from transceiver.backlog import Backlog
from transceiver.media.stream import MediaStream
from transceiver.talk.channels import Channels
from transceiver.talk.talk import Talk
from transceiver.transport import Outbound, Transport
from wire.ufrag import call_id

__all__ = ["Session"]

_SPARE_MS = 5


class Session:
    """One call. ``on_end(session)`` is called once, after which nothing more is sent. ``owner`` names the account that
    it is on, ``holder`` the ephemeral key with which it was placed, if any, ``dcid`` the stream of the events channel
    where the client has negotiated one."""

    def __init__(
        self,
        offer: sdp.Offer,
        ufrag: str,
        talk: Talk,
        *,
        outbound: Outbound,
        pacer: Pacer,
        backlog: Backlog,
        certificate: Certificate,
        on_end: Callable[[Session], None],
        owner: str = "",
        dcid: int | None = None,
        holder: str = "",
        consent_s: float = CONSENT_S,
    ) -> None:
        self.ufrag = ufrag
        self.owner = owner
        self.holder = holder
        self.began = time.monotonic()
        self.ended = ""
        self._offer = offer
        self.talk = talk
        self._packets = talk.agent_type.hears == "opus"
        self._pacer = pacer
        self._on_end = on_end
        self.stream = MediaStream(offer, rate_hz=talk.agent_type.rate_hz, packets=self._packets)
        self.transport = Transport(
            offer,
            ufrag,
            certificate,
            call=self,
            media=self.stream,
            outbound=outbound,
            backlog=backlog,
            consent_s=consent_s,
            dcid=dcid,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = logs.get().bind(call=call_id(ufrag))
        self._channels = Channels(
            talk,
            most_bytes=offer.max_message_bytes,
            dcid=dcid,
            failed=self.fail,
            log=self._log,
        )

    def answer(self, certificate: Certificate, host: str, port: int, more: Sequence[tuple[str, int]] = ()) -> str:
        """The SDP answer that names the edge's ``host`` and ``port``, and ``more`` of other edges."""
        return sdp.answer(
            self._offer,
            ufrag=self.ufrag,
            password=self.transport.ice.password,
            fingerprint=certificate.fingerprint,
            host=host,
            port=port,
            ssrc=self.stream.voice.ssrc,
            more=more,
        )

    def restart_ice(
        self, ufrag: str, remote: tuple[str, str], host: str, port: int, more: Sequence[tuple[str, int]] = ()
    ) -> str:
        """Takes other credentials from now on, the client's among them. Returns the SDP fragment that tells it ours."""
        ice = self.transport.ice
        ice.restart(ufrag, remote)
        self._log.info("ice restarts")
        return sdp.fragment(self._offer, ufrag=ufrag, password=ice.password, host=host, port=port, more=more)

    @property
    def half_open(self) -> bool:
        """Whether DTLS is not done yet."""
        return not self.talk.begun and not self.ended

    @property
    def kind(self) -> tuple[str, str]:
        """What its cost depends on: the agent and the codec."""
        return self.talk.agent_name, self._offer.codec

    # --- from the transport

    def connected(self) -> None:
        """Makes the agent, and begins to keep time: media is up."""
        talk, stream = self.talk, self.stream
        stream.start(self.transport)
        talk.begin(self.end, stream.voice, stream.so_far)
        stream.deliver_to(talk.conversation, take_packet=talk.host.heard_opus, tape=talk.record)
        if self.ended:
            return  # the agent's fault
        # What is heard as PCM is heard by the call's clock, and may wait for it.
        self.transport.spare_ms = 0 if self._packets else _SPARE_MS
        self._pacer.add(self._tick, self.kind)
        self._log.info("media up", agent=talk.agent_name)

    def channel_opened(self, channel: RTCDataChannel) -> None:
        """Takes a data channel that the client can use from now on."""
        self._channels.opened(channel)

    def channels_aborted(self, reason: str, why: str, error: Exception | None) -> None:
        """Takes note that SCTP was ended for what the client did with it."""
        self._channels.aborted(reason, why, error)

    def adopt(self, transport: Transport, channels: Iterable[RTCDataChannel]) -> None:
        """Goes on over ``transport``, which has taken up what was exported of the former one."""
        self.transport = transport
        self.stream.start(transport)
        self._channels.adopt(channels)

    def gone(self) -> None:
        """Takes note that the client has been told of the end."""
        self._on_end(self)

    # --- life

    def _tick(self) -> None:
        if self.ended:
            return
        try:
            self.stream.tick(time.monotonic())
        except Exception as e:
            self.fail(e)

    def sweep(self, now: float) -> None:
        """Looks after transport and agent; called about once a second."""
        self.transport.sweep(now)
        self.talk.check(now)

    def end(self, reason: str) -> None:
        """Ends the call, once; ``reason`` is one of ``counters.ENDS``."""
        if self.ended:
            return
        self.ended = reason
        self._pacer.remove(self._tick)
        stream = self.stream
        self.talk.end(reason, heard_ms=stream.heard_ms, frames=dict(stream.playout.stats))
        self.spawn(self.talk.joined())
        self._channels.close()
        stream.close()
        self.transport.close()

    def fail(self, error: BaseException) -> None:
        """Ends the call because of a fault of ours."""
        self._log.error("session failed", error=repr(error), exc_info=error)
        self.end("session_failed")

    async def closed(self) -> None:
        """Waits until an ended session has said goodbye."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Has ``work`` run beside everything else; where it fails, so does the call."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)
