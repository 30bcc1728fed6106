"""One call, from the offer to the end: a transport to the client, its media, and the agent that it is for."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from aiortc import RTCDataChannel

from rtc.dtls.secure import Certificate
from rtc.ice.lite import CONSENT_S
from rtc.pacer import Pacer
from rtc.sdp import answer as sdp
from runtime import logs
from transceiver.agents import Base
from transceiver.backlog import Backlog
from transceiver.counters import ENDS
from transceiver.media.stream import MediaStream
from transceiver.realtime.config import Config
from transceiver.records.files import Record, Records
from transceiver.talk.channels import Channels
from transceiver.talk.dialogue import Dialogue, Watchers
from transceiver.transport import Outbound, Transport
from wire.ufrag import call_id

__all__ = ["Session"]

_MOST_EARLY_EVENTS = 64  # of who watches a call that is not up yet
_SPARE_MS = 5


class Session:
    """``on_end(session)`` is called once, after which nothing more is sent. ``owner`` names whose account it is on,
    ``holder`` the ephemeral key it was placed with, if any, ``dcid`` the stream of the events channel where the client
    has negotiated one."""

    def __init__(
        self,
        offer: sdp.Offer,
        ufrag: str,
        agent: tuple[str, type[Base]],
        *,
        outbound: Outbound,
        pacer: Pacer,
        backlog: Backlog,
        certificate: Certificate,
        on_end: Callable[[Session], None],
        config: Config | None = None,
        owner: str = "",
        dcid: int | None = None,
        holder: str = "",
        consent_s: float = CONSENT_S,
        records: Records | None = None,
    ) -> None:
        self.ufrag = ufrag
        self.owner = owner
        self.holder = holder
        self.began = time.monotonic()
        self.ended = ""
        self._offer = offer
        self._agent_name, self._agent_type = agent
        self.config = config or Config(call_id(ufrag), agent[0])
        self._dialogue: Dialogue | None = None
        self.watchers = Watchers()
        self._early: deque[str | bytes] = deque(maxlen=_MOST_EARLY_EVENTS)
        self._pacer = pacer
        self._on_end = on_end
        self.stream = MediaStream(offer, rate_hz=agent[1].rate_hz, packets=agent[1].hears == "opus")
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
        self._records = records
        self._record: Record | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = logs.get().bind(call=call_id(ufrag))
        self._channels = Channels(
            self.watchers,
            most_bytes=offer.max_message_bytes,
            dcid=dcid,
            greet=self._greet,
            take=self.client_event,
            failed=self.fail,
            log=self._log,
        )

    def answer(self, certificate: Certificate, host: str, port: int) -> str:
        """The SDP answer that names the edge's ``host`` and ``port``."""
        return sdp.answer(
            self._offer,
            ufrag=self.ufrag,
            password=self.transport.ice.password,
            fingerprint=certificate.fingerprint,
            host=host,
            port=port,
            ssrc=self.stream.voice.ssrc,
        )

    def restart_ice(self, ufrag: str, remote: tuple[str, str], host: str, port: int) -> str:
        """Other credentials from now on, the client's among them; the SDP fragment that tells it ours."""
        ice = self.transport.ice
        ice.restart(ufrag, remote)
        self._log.info("ice restarts")
        return sdp.fragment(self._offer, ufrag=ufrag, password=ice.password, host=host, port=port)

    @property
    def half_open(self) -> bool:
        """Whether DTLS is yet to be done."""
        return self._dialogue is None and not self.ended

    # --- from the transport

    def connected(self) -> None:
        """Media is up: makes the agent, and begins to keep time."""
        pcm = self._agent_type.hears == "pcm"
        if self._records is not None:
            self._record = self._records.open(call_id(self.ufrag), self._agent_type.rate_hz if pcm else None)
        self.stream.start(self.transport)
        self._dialogue = Dialogue(
            self.config,
            self._agent_type,
            self.stream.voice,
            self.watchers,
            self._agent_failed,
            self._record,
            self.stream.so_far,
        )
        host, conversation = self._dialogue.host, self._dialogue.conversation
        self.stream.deliver_to(conversation, take_packet=host.heard_opus, tape=self._record)
        self._dialogue.begin()
        if self.ended:
            return  # the agent's fault
        while self._early:
            self._dialogue.client_event(self._early.popleft())
        # What is heard as PCM is heard by the call's clock, and may wait for it.
        self.transport.spare_ms = _SPARE_MS if pcm else 0
        self._pacer.add(self._tick)
        self._log.info("media up", agent=self._agent_name)

    def channel_opened(self, channel: RTCDataChannel) -> None:
        """A data channel that the client can use from now on."""
        self._channels.opened(channel)

    def channels_aborted(self, reason: str, why: str, error: Exception | None) -> None:
        """SCTP was ended for what the client did with it."""
        self._channels.aborted(reason, why, error)

    def gone(self) -> None:
        """The client has been told of the end."""
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
        """Called about once a second."""
        self.transport.sweep(now)
        if self._dialogue is not None and not self.ended:
            self._dialogue.host.check(now)

    def end(self, reason: str) -> None:
        """Ends the call, once; ``reason`` is one of ``counters.ENDS``."""
        if self.ended:
            return
        self.ended = reason
        ENDS[reason] += 1
        self._pacer.remove(self._tick)
        if self._dialogue is not None:
            self._dialogue.tell_end(reason)
            self._dialogue.close()
            self.spawn(self._dialogue.host.joined())
        if self._record is not None:
            self._record.close()
        self._channels.close()
        self.stream.close()
        self.transport.close()
        stream = self.stream
        self._log.info("ended", reason=reason, heard_ms=stream.heard_ms, frames=dict(stream.hearing.stats))

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

    def _agent_failed(self, why: str) -> None:
        """An agent that raises ends its own call and nobody else's."""
        if self.ended:
            return
        self._log.error("agent failed", agent=self._agent_name, why=why)
        self.end("agent_failed")

    def client_event(self, text: str | bytes) -> None:
        """An event of the client's, or of somebody who watches."""
        if self._dialogue is not None and not self.ended:
            self._dialogue.client_event(text)
        elif not self.ended:
            self._early.append(text)

    def _greet(self) -> None:
        if self._dialogue is not None and not self.ended:
            self._dialogue.greet()
