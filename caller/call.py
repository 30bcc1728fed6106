"""One call from the POST to the hang-up: the order of its steps, and the time that each may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import aiohttp

from caller import signaling
from caller.media import Media
from caller.offer import Answer, AnswerError, Offer, parse_answer
from caller.result import CallError, Outcome, Phase, Result
from caller.signaling import Token
from caller.voice import Voice
from rtc.dtls.secure import Certificate, DtlsError
from rtc.pacer import Pacer
from wire import address as flow

__all__ = ["Call", "Line"]

# Frames on their way when the talk ends get this long to come home; later counts as lost.
_DRAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Line:
    """The settings that all calls of a process share. ``url`` is complete (``signaling.calls_url``), ``bind`` is the
    local address for media or None, ``timeout_s`` the longest that each phase may take, ``keys`` the keys that are
    pressed."""

    http: aiohttp.ClientSession
    url: str
    token: Token | None
    voice: Voice
    pacer: Pacer
    bind: str | None = None
    timeout_s: float = 10.0
    keys: str = ""


class Call:
    """One call; ``run`` does all of it. ``state`` is ``waiting``, the phase that it is in, ``talk``, ``hangup`` or an
    Outcome."""

    def __init__(self, line: Line, number: int = 1) -> None:
        self._line = line
        self._began = 0.0
        self._placed: signaling.Placed | None = None
        self._call_id: str | None = None
        self._pacing = False
        self._setting_up: asyncio.Task[object] | None = None
        self._stopped = False
        self._error: CallError | None = None
        self.number = number
        self.state = "waiting"
        self.phases: list[Phase] = []
        self.media: Media | None = None

    async def run(self, talk_s: float) -> Result:
        """Sets up, talks for ``talk_s`` seconds from the first audio on, and hangs up. It never raises for a call that
        fails: the result says so."""
        try:
            await self.set_up()
            await self.talk(talk_s)
        except CallError as e:
            self._error = e
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._stopped or task is None or task.cancelling() > 1:
                raise
            task.uncancel()
        finally:
            await self.hang_up()
        return self.result()

    def stop(self) -> None:
        """Ends ``run`` early: a call that talks hangs up, and one that is being set up is given up."""
        if self._stopped:
            return
        self._stopped = True
        if self._setting_up is not None:
            self._setting_up.cancel()
        elif self.media is not None:
            self.media.ended.set()

    async def set_up(self) -> None:
        """Does everything from the POST to the first audio. Raises CallError."""
        loop = asyncio.get_running_loop()
        line = self._line
        self._setting_up = asyncio.current_task()
        try:
            certificate = Certificate.generateCertificate()
            offer = Offer(certificate.fingerprint, keys=bool(line.keys))
            self._began = loop.time()
            async with self._phase("signaling", lambda: f"no answer to the POST in {line.timeout_s:g} s"):
                self._placed = await signaling.place(line.http, line.url, line.token, offer.sdp())
                self._call_id = self._placed.call_id
                answer = self._answer(self._placed.sdp)
                if line.keys and answer.keys_payload_type is None:
                    raise CallError("signaling", "the answer takes no keys (telephone-event/48000)")
                self._mark("signaling")

            where = flow.show(flow.pack(*answer.address))
            media = self.media = Media(offer, answer, certificate, line.voice, line.keys)
            async with self._phase("ice", lambda: _no_check_answered(media, where, line.timeout_s)):
                try:
                    await media.open(line.bind)
                except OSError as e:
                    raise CallError("ice", f"no UDP socket towards {where}: {e.strerror or e}") from None
                await media.connected.wait()
                self._mark("ice", media.ice.connected_at)

            async with self._phase("dtls", lambda: _no_handshake(media, where, line.timeout_s)):
                try:
                    await media.secure()
                except DtlsError as e:
                    raise CallError("dtls", f"DTLS with {where}: {e}") from None
                self._mark("dtls")

            async with self._phase("first_audio", lambda: _no_audio(media, where, line.timeout_s)):
                line.pacer.add(media.send_frame)
                self._pacing = True
                await media.heard.wait()
                self._mark("first_audio", media.reception.first_at)
        finally:
            self._setting_up = None

    async def talk(self, seconds: float) -> None:
        """Speaks and listens. Raises CallError when the peer ends the call first."""
        assert self.media is not None, "set_up comes first"
        self.state = "talk"
        try:
            async with asyncio.timeout(seconds):
                await self.media.ended.wait()
        except TimeoutError:
            return
        if not self._stopped:
            raise CallError("talk", f"cut off while talking: {self.media.ended_why}")

    async def hang_up(self) -> None:
        """Stops speaking, waits for what is on its way home, tells the server and closes. Safe at any time."""
        self.state = "hangup"
        line, media = self._line, self.media
        if media is not None and self._pacing:
            self._pacing = False
            line.pacer.remove(media.send_frame)
            media.reception.finish(asyncio.get_running_loop().time())
            if self._error is None:
                await _drain(media)
                await media.ask()
        try:
            if self._placed is not None and self._placed.location is not None:
                async with asyncio.timeout(line.timeout_s):
                    await signaling.hang_up(line.http, self._placed.location, line.token)
        except TimeoutError:
            self._error = self._error or CallError("hangup", f"no answer to the hang-up in {line.timeout_s:g} s")
        except CallError as e:
            # A call that is lost already is often gone at the server too: the first error tells more.
            self._error = self._error or e
        finally:
            self._placed = None
            if media is not None:
                await media.close()
            self.state = self._outcome()

    def result(self) -> Result:
        """The result as far as it is known."""
        head = Result(
            number=self.number,
            outcome=self._outcome(),
            failed_phase=self._error.phase if self._error else None,
            error=str(self._error) if self._error else None,
            call_id=self._call_id,
            phases=tuple(self.phases),
        )
        media = self.media
        if media is None:
            return head
        reception, conversation = media.reception, media.conversation
        return replace(
            head,
            channel_open_ms=self._ms(media.channel_open_at),
            session_created_ms=self._ms(media.session_created_at),
            ice_round_trip_ms=media.ice.round_trip_ms,
            frames_sent=conversation.sent,
            frames_returned=conversation.returned,
            frames_lost=max(0, conversation.expected - conversation.returned),
            packets_received=reception.received,
            packets_lost=reception.lost,
            packets_duplicate=reception.duplicates,
            packets_reordered=reception.reordered,
            packets_rejected=media.rejected,
            jitter_ms=reception.jitter_ms if reception.received else None,
            longest_gap_ms=reception.longest_gap_ms if reception.received else None,
            round_trip_ms=conversation.round_trip_ms,
            response_ms=conversation.response_ms,
            barge_in_ms=conversation.barge_in_ms,
            keys_told=media.keys_told,
            words=tuple(media.words),
            told=media.told,
        )

    def _outcome(self) -> Outcome:
        if self._error is not None:
            return "failed"
        complete = any(p.name == "first_audio" for p in self.phases)
        return "ok" if complete else "interrupted"

    def _answer(self, sdp: str) -> Answer:
        bind = self._line.bind
        try:
            return parse_answer(sdp, ipv6=None if bind is None else ":" in bind)
        except AnswerError as e:
            raise CallError("signaling", f"the answer {e}") from None

    @asynccontextmanager
    async def _phase(self, name: str, too_late: Callable[[], str]) -> AsyncIterator[None]:
        self.state = name
        try:
            async with asyncio.timeout(self._line.timeout_s):
                yield
        except TimeoutError:
            raise CallError(name, too_late()) from None

    def _mark(self, name: str, at: float | None = None) -> None:
        end_ms = self._ms(at if at is not None else asyncio.get_running_loop().time())
        assert end_ms is not None
        self.phases.append(Phase(name, self.phases[-1].end_ms if self.phases else 0.0, end_ms))

    def _ms(self, at: float | None) -> float | None:
        return None if at is None else (at - self._began) * 1000


async def _drain(media: Media) -> None:
    for _ in range(round(_DRAIN_S / 0.01)):
        if media.conversation.returned >= media.conversation.expected:
            return
        await asyncio.sleep(0.01)


def _no_check_answered(media: Media, where: str, seconds: float) -> str:
    why = "nothing listens on that UDP port" if media.refused else "is UDP to that port open?"
    return f"no valid answer from {where} to {media.ice.sent} ICE checks in {seconds:g} s: {why}"


def _no_handshake(media: Media, where: str, seconds: float) -> str:
    got = f"{media.dtls_datagrams} datagrams came" if media.dtls_datagrams else "not one datagram came"
    return f"DTLS with {where} was not done in {seconds:g} s: {got}"


def _no_audio(media: Media, where: str, seconds: float) -> str:
    why = f"{media.rejected} packets did not authenticate" if media.rejected else "no packet came"
    return f"connected, but no audio from {where} in {seconds:g} s: {why}"
