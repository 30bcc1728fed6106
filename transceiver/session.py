"""One call: ICE, DTLS, SRTP, its media and its agent, from the offer to the end.

Datagrams come in by ``check``, ``dtls`` and ``media``; what goes out leaves through the link on the selected path.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from rtc.codecs.codec import CODECS
from rtc.codecs.quality import Quality
from rtc.dtls.secure import MAX_RTP_BYTES, Certificate, DtlsError, SecureTransport
from rtc.ice.lite import CONSENT_S, IceLite, Path
from rtc.pacer import Pacer
from rtc.rtp import packet as rtp
from rtc.rtp.gate import Gate
from rtc.rtp.history import History
from rtc.sdp import answer as sdp
from runtime import logs
from transceiver.agents import Base
from transceiver.backlog import Backlog
from transceiver.counters import ENDS, RX_DATAGRAMS, TX_DATAGRAMS, TX_FRAMES
from transceiver.media.hearing import Hearing
from transceiver.media.receiver import Receiver
from transceiver.media.reports import Reports
from transceiver.media.voice import Voice
from transceiver.realtime.config import Config
from transceiver.records.files import Record, Records
from transceiver.talk.channels import Channels
from transceiver.talk.dialogue import Dialogue, Watchers
from wire import stun
from wire.ufrag import call_id

__all__ = ["Outbound", "Session"]

_MOST_EARLY_EVENTS = 64  # of who watches a call that is not up yet
_HANDSHAKE_S = 15  # flights lost in a row are sent again after 0.1, 0.2, 0.4, 1, 2, 4 s
_REPORT_EVERY_TICKS = 50
_SPARE_MS = 5
# Packets of audio for a caller that moved: a round trip of 40 ms, and the 20 ms in which it said nothing.
_SENT_AGAIN = 3


class Outbound(Protocol):
    """What a session needs of the link to the edges."""

    def send(self, session: Session, path: Path, datagram: bytes) -> None:
        """Queues a datagram for the client at ``path``."""

    def path_down(self, session: Session, path: Path) -> None:
        """Tells the edge that the path holds consent no more."""

    def speaks(self, session: Session) -> None:
        """The caller sends with another SSRC than was known."""

    def connected(self, session: Session) -> None:
        """Its media is up: how long that can wait is another than before."""


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
        self.ice = IceLite(
            ufrag, self.began, remote_ufrag=offer.ice_ufrag, remote_password=offer.ice_password, consent_s=consent_s
        )
        self.opens_dtls = offer.dtls_client
        self.ended = ""
        self._offer = offer
        self._agent_name, self._agent_type = agent
        self.config = config or Config(call_id(ufrag), agent[0])
        self._dialogue: Dialogue | None = None
        self.watchers = Watchers()
        self._early: deque[str | bytes] = deque(maxlen=_MOST_EARLY_EVENTS)
        self._out = outbound
        self._pacer = pacer
        self._backlog = backlog
        self._on_end = on_end
        self._secure = SecureTransport(self._to_client, certificate, client=offer.dtls_client)
        codec = CODECS[offer.codec]
        self._gate = Gate()
        self._history = History()
        self._voice = Voice(offer.payload_type, self._send_rtp if offer.sends else None, codec, agent[1].rate_hz)
        self._quality = Quality(copies=offer.copies)
        self._hearing = Hearing(codec, agent[1].rate_hz, self._heard)
        passed = self._pass_on if self._agent_type.hears == "opus" else None
        self._receiver = Receiver(offer, self._hearing, passed, self._pressed)
        self._heard_ms = 0
        self._records = records
        self._record: Record | None = None
        self._heard_now = b""
        self._reports = Reports(self._voice.ssrc, reduced_size=offer.reduced_size)
        self._ticks = 0
        self._connecting = False
        self._last_path: Path | None = None  # for what is said after the last path's consent
        self._lost_paths: list[Path] = []
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
            password=self.ice.password,
            fingerprint=certificate.fingerprint,
            host=host,
            port=port,
            ssrc=self._voice.ssrc,
        )

    def restart_ice(self, ufrag: str, remote: tuple[str, str], host: str, port: int) -> str:
        """Other credentials from now on, the client's among them; the SDP fragment that tells it ours."""
        self.ice.restart(ufrag, remote)
        self._log.info("ice restarts")
        return sdp.fragment(self._offer, ufrag=ufrag, password=self.ice.password, host=host, port=port)

    # --- datagrams in

    def check(self, message: stun.Message, path: Path, *, free: bool = True) -> bytes | None:
        """The response to a STUN request addressed to this session, or None where it gets none: ``ice.refusal`` is
        why. ``free`` where no other session holds the path."""
        return None if self.ended else self.ice.check(message, path, time.monotonic(), free=free)

    def connect(self) -> None:
        """A path is proven and the edge knows it: begins DTLS, once."""
        if not self._connecting:
            self._connecting = True
            self._backlog.put(self, lambda: self._spawn(self._connect()))

    @property
    def half_open(self) -> bool:
        """Whether DTLS is yet to be done."""
        return self._dialogue is None and not self.ended

    @property
    def spare_ms(self) -> float:
        """How long the caller's media may wait on its way: what is heard as PCM is heard by the session's clock."""
        return _SPARE_MS if self._agent_type.hears == "pcm" and self._dialogue is not None else 0

    @property
    def ssrcs(self) -> tuple[int, ...]:
        """What the caller sends with, as far as is known."""
        heard = self._receiver.reception.ssrc
        return self._offer.ssrcs if heard is None else (heard,)

    def media_so_far(self) -> dict[str, Any]:
        """As JSON: the caller's frames by how they came, as ``counters.RX_FRAMES`` has them, and packets lost on the
        way up; ours by whether they were made in time, and the share that the caller last said was lost. ``wait_ms``
        is how long the jitter buffer waits, ``round_trip_ms`` is by RTCP, or None."""
        reception, round_trip_s = self._receiver.reception, self._reports.round_trip_s
        return {
            "heard": dict(self._hearing.stats),
            "lost": reception.lost,
            "jitter_ms": round(reception.jitter_ms, 2),
            "wait_ms": round(self._hearing.jitter.wait_ms, 1),
            "made": {"on_time": self._quality.on_time, "late": self._quality.late},
            "lost_share": self._reports.fraction_lost,
            "round_trip_ms": None if round_trip_s is None else round(1000 * round_trip_s, 1),
        }

    def dtls(self, datagram: bytes, path: Path | None = None) -> None:
        """A DTLS datagram from a path that something authentic came by; None is the selected one."""
        self.ice.came(path or self.ice.selected, len(datagram))
        feed = partial(self._secure.feed, datagram)
        taken = self._gate.admits_dtls(time.monotonic()) and self._backlog.put(self, feed)
        RX_DATAGRAMS["dtls" if taken else "overflow"] += 1

    def media(self, datagram: bytes) -> None:
        """An SRTP or SRTCP datagram from a path of the session's. What is bad is dropped, never an end."""
        now = time.monotonic()
        plain = self._opened(datagram, now)
        if isinstance(plain, str):
            RX_DATAGRAMS[plain] += 1
        elif rtp.is_rtcp(datagram):
            RX_DATAGRAMS["rtcp"] += 1
            self._resend(self._reports.received(plain, now))
        else:
            self._hear(plain, now)

    def media_if_authentic(self, datagram: bytes) -> bool:
        """Takes an SRTP datagram from whatever path; False, and neither counted nor looked at, unless it is ours."""
        now = time.monotonic()
        plain = self._opened(datagram, now)
        if isinstance(plain, str):
            return False
        self._hear(plain, now)
        return True

    def _opened(self, datagram: bytes, now: float) -> bytes | str:
        """RTP or RTCP, or why it is none, as ``RX_DATAGRAMS`` has it."""
        ready = self._secure.connected and self._dialogue is not None
        return self._gate.opened(datagram, self._secure, now) if ready else "too_early"

    def _hear(self, plain: bytes, now: float) -> None:
        if not self._offer.receives:
            RX_DATAGRAMS["not_received"] += 1
            return
        known = self._receiver.reception.ssrc
        if self._receiver.take(plain, now):
            self._give_feedback(now)
        if self._receiver.reception.ssrc != known:
            self._out.speaks(self)

    def moved(self) -> None:
        """The caller has another address, and answered there. What went to the old one meanwhile is lost: it is sent
        once more, and a receiver that has it already drops it (RFC 3711 section 3.3.2)."""
        self._log.info("path moved")
        for datagram in self._history.last(_SENT_AGAIN):
            self._to_client(datagram)

    # --- life

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                await self._secure.handshake(self._offer.fingerprints)
        except (DtlsError, TimeoutError) as e:
            if not self.ended:
                self._log.warning("dtls failed", why=str(e) or f"no answer in {_HANDSHAKE_S} s")
            self.end("dtls_failed")
            return
        if self.ended:
            return  # hung up while the last flight was on its way
        self.ice.secured(time.monotonic())
        self._secure.on_close(lambda: self.end("closed_by_peer"))
        if self._records is not None:
            rate_hz = self._agent_type.rate_hz if self._agent_type.hears == "pcm" else None
            self._record = self._records.open(call_id(self.ufrag), rate_hz)
        self._dialogue = Dialogue(
            self.config,
            self._agent_type,
            self._voice,
            self.watchers,
            self._agent_failed,
            self._record,
            self.media_so_far,
        )
        self._dialogue.begin()
        if self.ended:
            return  # the agent's fault
        while self._early:
            self._dialogue.client_event(self._early.popleft())
        # An agent that passes Opus on sends when it is sent to; reports are due all the same.
        self._pacer.add(self._tick)
        self._out.connected(self)
        self._log.info("media up", agent=self._agent_name)
        if self._offer.sctp_port:
            await self._secure.open_sctp(
                self._offer.sctp_port,
                self._offer.max_message_bytes,
                self._channels.opened,
                negotiated=self._channels.dcid,
                aborted=self._channels.aborted,
            )

    def sweep(self, now: float) -> None:
        """Called about once a second: gives up paths and the session when consent is gone (RFC 7675)."""
        last = self.ice.selected
        lost = self.ice.expire(now)
        if reason := self.ice.ended(now):
            # The edge forgets the path when the caller has been told.
            self._last_path, self._lost_paths = last, lost
            self.end(reason)
            return
        for path in lost:
            self._out.path_down(self, path)
        for path, probe in self.ice.due(now):
            self._out.send(self, path, probe)
        if self._dialogue is not None:
            self._dialogue.host.check(now)

    def end(self, reason: str) -> None:
        """Ends the call, once; ``reason`` is one of ``counters.ENDS``."""
        if self.ended:
            return
        self.ended = reason
        ENDS[reason] += 1
        self._backlog.forget(self)
        self._pacer.remove(self._tick)
        if self._dialogue is not None:
            self._dialogue.tell_end(reason)
            self._dialogue.close()
            self._spawn(self._dialogue.host.joined())
        if self._record is not None:
            self._record.close()
        self._channels.close()
        self._spawn(self._close())
        self._log.info("ended", reason=reason, heard_ms=self._heard_ms, frames=dict(self._hearing.stats))

    def fail(self, error: BaseException) -> None:
        """Ends the call because of a fault of ours."""
        self._log.error("session failed", error=repr(error), exc_info=error)
        self.end("session_failed")

    async def _close(self) -> None:
        try:
            await self._secure.close()
        finally:
            for path in (*self.ice.paths, *self._lost_paths):
                self._out.path_down(self, path)
            self._on_end(self)

    async def closed(self) -> None:
        """Waits until an ended session has said goodbye."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)

    # --- media out

    def _to_client(self, datagram: bytes) -> None:
        path = self.ice.selected or self._last_path
        if path is None:
            TX_DATAGRAMS["no_path"] += 1
        elif path == self._last_path or self.ice.may_send(path, len(datagram)):
            self._out.send(self, path, datagram)
        else:
            TX_DATAGRAMS["unproved"] += 1
            if probe := self.ice.probe(path, time.monotonic()):
                self._out.send(self, path, probe)

    def _send_rtp(self, packet: bytes) -> None:
        if len(packet) > MAX_RTP_BYTES:
            TX_DATAGRAMS["too_long"] += 1
        else:
            datagram = self._secure.protect(packet)
            self._history.put(int.from_bytes(packet[2:4], "big"), datagram)
            self._to_client(datagram)

    def _resend(self, sequences: list[int]) -> None:
        for datagram in self._history.again(sequences):
            TX_FRAMES["again"] += 1
            self._to_client(datagram)

    def _give_feedback(self, now: float) -> None:
        for packet in self._receiver.feedback(now, self._voice.ssrc, self._reports.round_trip_s):
            self._to_client(self._secure.protect_rtcp(self._reports.feedback(packet)))

    def _tick(self) -> None:
        try:
            self._send_next()
        except Exception as e:
            self.fail(e)

    def _send_next(self) -> None:
        if not self._secure.connected:
            return
        assert self._dialogue is not None
        now = time.monotonic()
        # First what is heard: an agent that answers at once is heard in the same tick.
        self._receiver.tick(now)
        if self.ended:
            return
        self._dialogue.conversation.tick(now)
        if self.ended:
            return
        self._quality.tick(now)
        if self._agent_type.hears == "pcm":
            self._voice.settings = self._quality.settings
            self._voice.tick()
            if self._record is not None:
                self._record.frame(self._heard_now, self._voice.said, now)
                self._heard_now = b""
        self._give_feedback(now)
        self._ticks += 1
        if self._ticks % _REPORT_EVERY_TICKS == 0:
            self._receiver.observe()
            self._quality.reported(self._reports.fraction_lost)
            compound = self._reports.compound(self._voice, self._receiver.reception, now, time.time())
            self._to_client(self._secure.protect_rtcp(compound))

    # --- the agent and who speaks with it

    def _pass_on(self, packet: rtp.Packet) -> None:
        assert self._dialogue is not None
        self._dialogue.host.heard_opus(packet.payload, packet.timestamp, packet.marker)

    def _heard(self, pcm: bytes) -> bool:
        assert self._dialogue is not None
        self._heard_ms += 20
        self._heard_now = pcm
        return self._dialogue.conversation.hear(pcm, time.monotonic())

    def _pressed(self, digit: str) -> None:
        if self._dialogue is not None and not self.ended:
            self._dialogue.conversation.pressed(digit, int(time.time()))

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
