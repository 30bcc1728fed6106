"""The receive side of one call: authenticated RTP in, the agent's audio out, and feedback to the sender between
reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rtc.jitter.buffer import Came
from rtc.rtp import dtmf, nack, red
from rtc.rtp import packet as rtp
from rtc.rtp.nack import Missing
from rtc.rtp.packet import Packet
from rtc.rtp.reception import Reception
from rtc.rtp.ssrc import BEGINS, CONTINUES, STRANGER, SsrcSelector
from rtc.rtp.transport_cc import Arrivals
from rtc.sdp.answer import Offer
from transceiver.counters import RX_DATAGRAMS, RX_KEYS, TARGET
from transceiver.media.playout import Playout
from transceiver.media.state import ReceiverState

__all__ = ["Receiver", "TakePacket"]


TakePacket = Callable[[bytes, int, bool], None]


class Receiver:
    """The receive side. ``take`` each packet, and ``tick`` every 20 ms. Packets go to ``passed(payload, timestamp,
    marker)`` as they come where that is given, and else to ``playout``; pressed keys go to ``pressed``, once for each
    press."""

    def __init__(
        self,
        offer: Offer,
        playout: Playout,
        passed: TakePacket | None = None,
        pressed: Callable[[str], None] = lambda digit: None,
    ) -> None:
        self.reception = Reception(playout.codec.clock_hz)
        self._payload_type = offer.payload_type
        self._red = offer.red_payload_type
        self._transport_cc_id = offer.transport_cc_id
        self._hearing = playout
        self._nack = offer.nack
        self._pressed = pressed
        self._keys = frozenset(number for number, _ in offer.keys)
        self._keypad = dtmf.Keypad()
        self._source = SsrcSelector()
        self._arrivals = Arrivals()
        self._targets = TARGET.of(playout.codec.name)
        self.pass_to(passed)

    def pass_to(self, passed: TakePacket | None) -> None:
        """Has packets go to ``passed`` as they come from now on, or be played out where that is None."""
        self._passed = passed
        # What is passed on as it comes would come too late.
        self._missing = Missing() if self._nack and passed is None else None

    def take(self, plain: bytes, now: float) -> bool:
        """Takes an RTP packet that came at ``now``, in seconds. Returns whether ``feedback`` should be given at once. A
        bad packet is dropped and counted."""
        packet = rtp.parse(plain)
        if packet is None:
            RX_DATAGRAMS["rtp_malformed"] += 1
            return False
        copies: Sequence[Packet] = ()
        if packet.payload_type != self._payload_type:
            if packet.payload_type in self._keys:
                return self._key(packet, now)
            if packet.payload_type != self._red or self._red is None:
                RX_DATAGRAMS["other_payload"] += 1
                return False
            parts = red.split(packet, self._payload_type)
            if parts is None:
                RX_DATAGRAMS["rtp_malformed"] += 1
                return False
            packet, copies = parts
        admitted = self._source.admit(packet, now)
        if admitted == STRANGER:
            RX_DATAGRAMS["other_source"] += 1
            return False
        RX_DATAGRAMS["audio"] += 1
        anew = admitted == BEGINS
        self._arrived(packet, now, anew=anew)
        if self._passed is not None:
            self._passed(packet.payload, packet.timestamp, packet.marker)
            return False
        self._hear(packet, copies, now, anew=anew)
        return self._missing is not None and self._missing.fresh

    def _arrived(self, packet: Packet, now: float, *, anew: bool, timed: bool = True) -> None:
        self.reception.add(packet, now, anew=anew, timed=timed)
        if packet.extensions and self._transport_cc_id is not None:
            number = rtp.extension(packet.extensions, self._transport_cc_id)
            if number is not None and len(number) == 2:
                self._arrivals.add(int.from_bytes(number, "big"), now)

    def _key(self, packet: Packet, now: float) -> bool:
        """Takes a telephone-event. It has one of the voice's sequence numbers and takes none of its time, so to
        everything else it is a packet with nothing in it. With another SSRC it is no part of the voice's stream."""
        if dtmf.events(packet.payload) is None:
            RX_DATAGRAMS["rtp_malformed"] += 1
            return False
        ours = packet.ssrc == self._source.ssrc
        admitted = self._source.admit(packet, now) if ours else CONTINUES
        if admitted == STRANGER:
            RX_DATAGRAMS["other_source"] += 1
            return False
        RX_DATAGRAMS["dtmf"] += 1
        if ours:
            self._arrived(packet, now, anew=admitted == BEGINS, timed=False)
        if ours and self._passed is None:
            self._follow(packet, anew=admitted == BEGINS)
            self._hearing.jitter.push(packet._replace(payload=b""), now)
        refused = self._keypad.refused
        for digit in self._keypad.take(packet, now):
            RX_KEYS["pressed"] += 1
            self._pressed(digit)
        RX_KEYS["too_many"] += self._keypad.refused - refused
        return self._missing is not None and self._missing.fresh

    def _hear(self, packet: Packet, copies: Sequence[Packet], now: float, *, anew: bool) -> None:
        missing, playout = self._missing, self._hearing
        came = self._follow(packet, anew=anew)
        playout.push(packet, now, came)
        for copy in copies:
            if playout.push(copy, now, Came.COPY) and missing is not None:
                missing.came(copy.sequence)

    def _follow(self, packet: Packet, *, anew: bool) -> int:
        """The way in which the packet came (``Came``). ``anew`` says that another stream begins with it: what was held
        and missed of the last one is forgotten."""
        if anew:
            self._hearing.jitter.restart()
            if self._missing is not None:
                self._missing.restart()
        return Came.AGAIN if self._missing is not None and self._missing.came(packet.sequence) else Came.FRESH

    @property
    def asks(self) -> bool:
        """Whether packets are lost, and asked for again."""
        return self._missing is not None and self._hearing.jitter.lossy

    def tick(self, now: float) -> None:
        """Makes the next 20 ms of what is heard."""
        if self._passed is None:
            self._hearing.tick(now)

    @property
    def owes(self) -> bool:
        """Whether ``feedback`` may have something to say."""
        return self._arrivals.waits or (self._missing is not None and self._missing.waits)

    def feedback(self, now: float, sender: int, round_trip_s: float | None) -> Iterator[bytes]:
        """The RTCP packets from ``sender`` that are due: requests for what is missing, and arrival times."""
        source = self.reception.ssrc
        if source is None:
            return
        if self._missing is not None:
            jitter = self._hearing.jitter
            jitter.return_ms = round_trip_s * 1000 if round_trip_s is not None else None
            lost = self._missing.due(now, jitter.return_ms, jitter.until_due_ms)
            if lost:
                yield nack.pack(sender, source, lost)
        report = self._arrivals.report(now, sender, source)
        if report is not None:
            yield report

    def observe(self) -> None:
        """Enters the buffer's target in the process's histogram; called about once a second."""
        if self._passed is None and self.reception.ssrc is not None:
            self._targets.add(int(self._hearing.jitter.wait_ms * 1e6))

    # --- as a value

    def export(self, now: float) -> ReceiverState:
        """All of it, less its playout."""
        return ReceiverState(
            self.reception.export(now),
            self._source.export(now),
            self._keypad.export(now),
            self._arrivals.export(now),
            None if self._missing is None else self._missing.export(now),
        )

    def take_up(self, state: ReceiverState, now: float) -> None:
        """Goes on where ``export`` left off."""
        self.reception.take_up(state.reception, now)
        self._source.take_up(state.source, now)
        self._keypad.take_up(state.keypad, now)
        self._arrivals.take_up(state.arrivals, now)
        if self._missing is not None and state.missing is not None:
            self._missing.take_up(state.missing, now)
