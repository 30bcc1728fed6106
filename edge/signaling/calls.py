"""Calls over WebRTC: an offer is answered, and a call is listed, given another model, and ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
from aiohttp import web

from edge.links.transceivers import RequestRefused, Transceivers, Unavailable
from edge.peers import Peers
from edge.signaling.access import Access, Caller
from edge.signaling.bodies import Offer, check_intent, model_name, query, read_json, read_offer
from edge.signaling.errors import Refusal, refused, unavailable
from edge.signaling.ledger import Ledger
from edge.signaling.placing import Placing
from edge.tracing import traced
from runtime.tracing.spans import NOTHING, Span
from runtime.tracing.tracer import OFF, Tracer
from wire import messages
from wire.fields import Neighbour
from wire.handoffs import HandedOff, Handoff, List, Listed
from wire.keys import ClusterKeys
from wire.ufrag import call_id, open_sealed, ufrag_of_call
from wire.versions import MOVES

__all__ = ["PATH", "Answer", "Calls", "call_not_found"]

PATH = "/v1/realtime/calls"
_CALL = "realtime.call"
_HANDOFF_S = 45.0  # a transceiver takes 40 at most
_MAX_DCID = 65534  # RFC 8832 section 6: 65535 is no stream


class Answer:
    """The result of a placed call: its public id and the SDP answer."""

    def __init__(self, call: str, sdp: str) -> None:
        self.call = call
        self.sdp = sdp


class Calls:
    """The handlers. ``peers`` have the addresses that answers name, ``keys`` gives the keys that open call ids."""

    def __init__(
        self,
        transceivers: Transceivers,
        access: Access,
        placing: Placing,
        ledger: Ledger,
        keys: Callable[[], ClusterKeys],
        peers: Peers,
        tracer: Tracer = OFF,
    ) -> None:
        self._transceivers = transceivers
        self._access = access
        self._placing = placing
        self._ledger = ledger
        self._keys = keys
        self._peers = peers
        self._tracer = tracer

    async def place_call(self, request: web.Request) -> web.Response:
        """``POST /v1/realtime/calls``: 201 with the answer and a relative Location."""
        caller = self._access.caller(request)
        with traced(self._tracer, request, 201) as span:
            check_intent(request)
            dcid, model = _dcid(query(request, "dcid")), query(request, "model") or ""
            answer = await self.place(caller, await read_offer(request), model, dcid, span)
        headers = {"Location": f"{PATH}/{answer.call}"}
        return web.Response(status=201, text=answer.sdp, content_type="application/sdp", headers=headers)

    async def place(
        self, caller: Caller, offer: Offer, model: str, dcid: int | None = None, span: Span = NOTHING
    ) -> Answer:
        """Has a transceiver answer, for the request of ``span``. What an ephemeral key says of the session stands.
        Raises Refusal."""
        session = caller.session(offer.session)
        asked = model_name(model) or offer.session.get("model", "")
        agent = caller.model(asked)
        media, *more = self._peers.media(time.monotonic())
        wanted = messages.Offer(
            offer=offer.sdp,
            agent=agent,
            media=media,
            more_media=more,
            session=session or None,
            owner=caller.key,
            holder=caller.token_id,
            locked=caller.locked,
            dcid=dcid,
            **span.headers,
        )
        _, answer = await self._placing.place(
            caller, lambda transceiver: self._transceivers.ask(transceiver, wanted), agent, span=span
        )
        return Answer(call_id(answer.ufrag), answer.sdp)

    async def end_call(self, request: web.Request) -> web.Response:
        """``POST .../hangup`` and ``DELETE``: 200."""
        caller = self._access.caller(request)
        with traced(self._tracer, request) as span:
            transceiver, ufrag = self.find(request.match_info["call"], caller)
            span.put({"firsthop.call.id": call_id(ufrag)})
            try:
                await self._transceivers.ask(transceiver, messages.End(ufrag=ufrag, owner=caller.key))
            except RequestRefused as e:
                if e.code == "call_id_not_found":
                    self._ledger.ended(ufrag)
                raise refused(e) from None
            except Unavailable as e:
                raise self.unavailable(ufrag, e) from None
            self._ledger.ended(ufrag)
            return web.Response(status=200)

    async def list_calls(self, request: web.Request) -> web.Response:
        """``GET /v1/realtime/calls``: 200 with the calls on the key's account, of one ``model`` or of all. Asked are
        the transceivers that have calls of this edge."""
        caller = self._access.holder(request)
        asked = List(agent=model_name(query(request, "model") or ""), owner=caller.key)
        replies = await asyncio.gather(
            *(self._transceivers.ask(i, asked, least=MOVES) for i in sorted(self._ledger.transceivers)),
            return_exceptions=True,
        )
        found = [reply for reply in replies if isinstance(reply, Listed)]
        sessions = {ufrag: model for reply in found for ufrag, model in reply.sessions}
        calls = [{"object": _CALL, "id": call_id(ufrag), "model": model} for ufrag, model in sessions.items()]
        more = len(found) < len(replies) or any(reply.more for reply in found)
        return web.json_response({"object": "list", "data": calls, "has_more": more})

    async def hand_off(self, request: web.Request) -> web.Response:
        """``POST .../handoff``: 200 when another model has the call. Where that is refused, the present one stays."""
        caller = self._access.holder(request)
        with traced(self._tracer, request) as span:
            return await self._hand_off(request, caller, span)

    async def _hand_off(self, request: web.Request, caller: Caller, span: Span) -> web.Response:
        model = model_name((await read_json(request)).get("model", ""))
        if not model:
            raise Refusal(400, "Missing required parameter: 'model'.", code="missing_required_parameter", param="model")
        transceiver, ufrag = self.find(request.match_info["call"], caller)
        span.put({"firsthop.call.id": call_id(ufrag)})
        wanted = Handoff(ufrag=ufrag, agent=caller.model(model), owner=caller.key)
        try:
            done = await self._ask_handoff(transceiver, wanted)
        except RequestRefused as e:
            if e.code != "model_not_found":
                raise refused(e) from None
            done = await self._hand_off_elsewhere(caller, wanted, refused(e))
        except Unavailable as e:
            raise unavailable(e) from None
        return web.json_response({"object": _CALL, "id": call_id(ufrag), "model": done.agent})

    async def _ask_handoff(self, transceiver: int, wanted: Handoff) -> HandedOff:
        return await self._transceivers.ask(transceiver, wanted, patience_s=_HANDOFF_S, least=MOVES)

    async def _hand_off_elsewhere(self, caller: Caller, wanted: Handoff, not_here: Refusal) -> HandedOff:
        """Has a call move to a transceiver that has the model, which its own has not. Raises Refusal."""
        home = self._transceivers.whereabouts.home(wanted.ufrag)

        async def ask(to: int) -> HandedOff:
            # It may have moved meanwhile.
            now, present = self._transceivers.whereabouts.home(wanted.ufrag), self._transceivers.directory.present
            if to not in present:
                raise Unavailable(f"transceiver {to} is not there any more")
            there = Neighbour(id=to, endpoint=present[to].endpoint)
            return await self._ask_handoff(now, msgspec.structs.replace(wanted, to=None if now == to else there))

        return await self._placing.elsewhere(ask, wanted.agent, but=home, may=caller.may, not_here=not_here)

    async def ice(self, caller: Caller, call: str, match: str, remote: tuple[str, str] | None) -> tuple[str, str]:
        """Passes on the client's ICE credentials ``remote``, if it sent any; ``match`` names the ICE session that the
        client knows, or is a star. Returns the name of the present ICE session, and the SDP fragment of a restart or
        nothing. Raises Refusal."""
        transceiver, ufrag = self.find(call, caller)
        known = match if match == "*" else (ufrag_of_call(match) or b"").decode()
        media, *more = self._peers.media(time.monotonic())
        ice = messages.Ice(ufrag=ufrag, match=known, remote=remote, media=media, more_media=more, owner=caller.key)
        try:
            now = await self._transceivers.ask(transceiver, ice)
        except RequestRefused as e:
            raise refused(e) from None
        except Unavailable as e:
            raise self.unavailable(ufrag, e) from None
        return call_id(now.ufrag), now.fragment

    def find(self, call: str, caller: Caller) -> tuple[int, str]:
        """The transceiver that holds ``call``, and its ufrag. An ephemeral key finds only calls that it placed itself,
        at this edge; an API key finds those on its account, which the transceiver knows. Raises Refusal."""
        sealed = ufrag_of_call(call)
        route = open_sealed(sealed, self._keys().ufrag) if sealed else None
        if sealed is None or route is None:
            raise call_not_found()
        if caller.token is not None:
            held = self._ledger.get(sealed.decode())
            if held is None or held.token != caller.token.id:
                raise call_not_found()
        return self._transceivers.whereabouts.home(sealed.decode()), sealed.decode()

    def unavailable(self, ufrag: str, e: Unavailable) -> Refusal:
        """The refusal where the transceiver of a call did not answer: another try makes sense, unless it is gone."""
        transceiver = self._transceivers.whereabouts.home(ufrag)
        if not self._transceivers.lost(transceiver):
            return unavailable(e)
        why = f"transceiver {transceiver} is gone, and its calls with it"
        return Refusal(404, why, code="call_id_not_found", param="call_id")


def call_not_found() -> Refusal:
    """The refusal of a call that is not known: 404."""
    return Refusal(404, "no such call", code="call_id_not_found", param="call_id")


def _dcid(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= _MAX_DCID):
        raise Refusal(400, f"Invalid value for 'dcid': 0 to {_MAX_DCID}.", code="invalid_value", param="dcid")
    return int(text)
