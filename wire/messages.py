"""The control messages between an edge's processes and a transceiver: what each says, and the bounds of its fields.

``python -m wire.reference`` prints this as the protocol's reference. A message without a field that has a default means
the default, and fields that are not known here are ignored. Three unions say who may be told what; how a message
becomes bytes is in ``wire.control``.

A ``Request`` gets one reply: the message that it names, or ``Refused``. A request that cannot be used is refused with
code ``invalid_request``, one that the transceiver fails at with ``internal_error``.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, field

from wire.fields import (
    MAX_MORE_MEDIA,
    MAX_PARTS,
    Address,
    Agent,
    CallUfrag,
    Holder,
    Locked,
    LongText,
    Media,
    MediaAddress,
    Message,
    MoreMedia,
    Name,
    Neighbour,
    Number,
    Owner,
    PartNumber,
    Request,
    Session,
    Ssrc,
    Text,
    TraceParent,
    TraceState,
    Transceiver,
    Ufrag,
    Version,
    about,
    reply_type,
)
from wire.handoffs import MAX_STATE_BYTES, HandedOff, Handoff, List, Listed, Warm, Warmed
from wire.report import Report

__all__ = [
    "MAX_MORE_MEDIA",
    "MAX_NEIGHBOURS",
    "MAX_PARTS",
    "MAX_PIECE_BYTES",
    "MAX_SSRCS",
    "MAX_STATE_BYTES",
    "Answer",
    "Check",
    "Checked",
    "Closed",
    "Dropped",
    "End",
    "Ended",
    "Event",
    "GoOn",
    "Health",
    "HealthReport",
    "Hello",
    "Ice",
    "IceAnswer",
    "Media",
    "Message",
    "Moved",
    "Neighbour",
    "Neighbours",
    "NotSteered",
    "Offer",
    "Open",
    "Opened",
    "Part",
    "PartTaken",
    "PathDown",
    "PathUp",
    "Refused",
    "Request",
    "Reserve",
    "Reserved",
    "Steered",
    "Take",
    "Taken",
    "Ticket",
    "ToSignaling",
    "ToSource",
    "ToTransceiver",
    "ToWorker",
    "Unwatch",
    "Watch",
    "Watching",
    "reply_type",
]

MAX_SSRCS = 8  # of one path
MAX_NAMES = 8  # ufrags of one call, and paths of it at one worker, in one message
MAX_PATHS = 64  # of one call that is handed over
MAX_NEIGHBOURS = 64
MAX_PIECE_BYTES = 256 << 10  # of such a part, in one message


# --- either way


class Hello(Message, tag="hello"):
    """The versions of the wire that a side speaks. An edge's process says it on a new link, and is answered."""

    versions: Annotated[tuple[Version, Version], about("The oldest and the newest version that the sender speaks.")]
    software: Annotated[Text, about("The sender's release, for its reader's log.")] = ""


class Event(Message, tag="session.event"):
    """An event of a session: from a client that opened or watches it, or to all clients that do, each once."""

    ufrag: CallUfrag
    event: Annotated[str, about("JSON text, of at most `link.MAX_EVENT_BYTES`.")]
    number: Annotated[
        Number,
        about(
            "Counts, from 1 on, what the sender says to the receiver of a call that is watched; 0 where nobody counts."
        ),
    ] = 0


# --- transceiver to signaling


class Refused(Message, tag="session.refused"):
    """The refusal of a request, whatever it was."""

    code: Annotated[Text, about("The reason, for programs: `full`, `call_id_not_found`, `invalid_request`, ...")]
    message: Annotated[LongText, about("The reason, for people.")]
    param: Annotated[Text | None, about("The part of the client's request at fault.")] = None


class Answer(Message, tag="session.answer"):
    """The transceiver took the call."""

    ufrag: Annotated[Ufrag, about("The session's name from now on, and the ufrag in the SDP.")]
    sdp: Annotated[str, Meta(max_length=1 << 17), about("The SDP answer (RFC 8829).")]


class Opened(Message, tag="session.opened"):
    """The transceiver opened the session without media."""

    ufrag: Annotated[Ufrag, about("The session's name from now on.")]


class Watching(Message, tag="session.watching"):
    """The session's events are on their way from now on."""

    session: Annotated[dict[str, Any] | None, about("The session as in `session.created`.")] = None
    number: Annotated[
        Number | None, about("The number of the last event before these; nil from a transceiver that does not count.")
    ] = None
    taken: Annotated[Number, about("The number of the last of the receiver's events that is known to the session.")] = 0
    missed: Annotated[bool, about("Whether events after `after` are lost.")] = False


class Ended(Message, tag="session.ended"):
    """The session is over."""


class Checked(Message, tag="session.checked"):
    """Such a session would be taken."""


class IceAnswer(Message, tag="session.ice"):
    """The ICE session that there is now."""

    ufrag: Annotated[Ufrag, about("The transceiver's ufrag: a new one where ICE restarts.")]
    fragment: Annotated[str, Meta(max_length=1 << 14), about("SDP (RFC 8840) where ICE restarts, or empty.")]


class HealthReport(Message, tag="health"):
    """The transceiver is there."""

    sessions: Annotated[int, Meta(ge=0, le=1 << 32), about("The number of its sessions.")]
    agents: Annotated[list[Text], Meta(max_length=4096), about("The names of the agents that it has.")] = field(
        default_factory=list
    )
    report: Annotated[Report | None, about("Its report of itself (`wire.report`), about once a second a new one.")] = (
        None
    )


class Closed(Message, tag="session.closed"):
    """A session is over. All who placed, opened or watch it are told."""

    ufrag: CallUfrag
    reason: Annotated[LongText, about("The reason, in a word.")]


# --- signaling to transceiver


class Offer(Request[Answer], tag="session.offer"):
    """Asks for a call over WebRTC."""

    offer: Annotated[str, about("The client's SDP offer.")]
    agent: Agent
    media: MediaAddress
    more_media: MoreMedia = field(default_factory=list)
    session: Session = None
    owner: Owner = ""
    holder: Holder = ""
    locked: Locked = None
    dcid: Annotated[
        Annotated[int, Meta(ge=0, le=65534)] | None,
        about("The SCTP stream of the events channel, where the client has negotiated one (RFC 8832 section 6)."),
    ] = None
    traceparent: TraceParent = ""
    tracestate: TraceState = ""


class Open(Request[Opened], tag="session.open"):
    """Asks for a session without media. Its events go to the process that asked, from the first on."""

    agent: Agent
    session: Session = None
    owner: Owner = ""
    holder: Holder = ""
    locked: Locked = None
    traceparent: TraceParent = ""
    tracestate: TraceState = ""


class Watch(Request[Watching], tag="session.watch"):
    """Asks for the events of a session that exists. A process that asks again gets each of them once all the same, and
    one `session.unwatch` takes all back."""

    ufrag: CallUfrag
    owner: Owner = ""
    after: Annotated[
        Number | None,
        about("The number of the last event that came, of a process that watched before: what came after it is due."),
    ] = None
    sent: Annotated[Number, about("The number of the last event that the sender has sent to this session.")] = 0


class Unwatch(Message, tag="session.unwatch"):
    """Takes `session.watch` back."""

    ufrag: CallUfrag


class End(Request[Ended], tag="session.end"):
    """Ends a session."""

    ufrag: CallUfrag
    owner: Owner = ""


class Ice(Request[IceAnswer], tag="session.ice"):
    """Tells the client's ICE credentials (RFC 9725 section 4.3): where they are new, ICE restarts."""

    ufrag: CallUfrag
    match: Annotated[Text, about("The transceiver's ufrag as the client knows it, or a star for any.")]
    remote: Annotated[tuple[Text, Text] | None, about("The client's ufrag and password, or nil to ask only.")]
    media: MediaAddress
    more_media: MoreMedia = field(default_factory=list)
    owner: Owner = ""


class Check(Request[Checked], tag="session.check"):
    """Asks whether such a session would be taken, for an ephemeral key that is being made."""

    agent: Agent
    session: Session = None
    locked: Locked = None


class Health(Request[HealthReport], tag="health"):
    """Asks whether the transceiver is there."""


# --- transceiver to worker


class PathUp(Message, tag="path.up"):
    """A client proved itself: datagrams from its address are for this transceiver.

    The ufrag's seal says whose the path is. The worker grants it only to a transceiver to which it passed something
    from that address (``edge.relay.claims``).
    """

    address: Annotated[Address, about("The client's address (`wire.address`).")]
    ufrag: Annotated[Ufrag, about("The ufrag in its checks.")]
    ssrcs: Annotated[
        list[Ssrc],
        Meta(max_length=MAX_SSRCS),
        about("The SSRCs that it sends: a hint for media from an address that is new."),
    ]
    spare_ms: Annotated[
        float, Meta(ge=0, le=1000), about("The time that media of this path may wait at the worker, in milliseconds.")
    ] = 0.0
    proved: Annotated[
        bool, about("Whether it answered a check of ours. One that has not yet takes no path from another transceiver.")
    ] = True
    number: Annotated[
        Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] | None,
        about("The flow's number in the ticket that it has, 0 where it wants one; nil: it takes none from this edge."),
    ] = None


class PathDown(Message, tag="path.down"):
    """A path is nobody's any more."""

    address: Annotated[Address, about("The client's address (`wire.address`).")]


# --- hand-over of calls (version 5)


class Moved(Message, tag="call.moved"):
    """A call lives at another transceiver from now on. Its ufrags stay, so whoever routes by them takes note.

    A transceiver says it of calls that are at it: to all workers, and with the addresses to those that have the call's
    paths, and to all of signaling, behind the last event. One that has a call says so to the transceiver that the
    call's ufrag names, again and again: a process that begins there knows it from nobody else.
    """

    ufrags: Annotated[
        list[Ufrag], Meta(min_length=1, max_length=MAX_NAMES), about("The first ufrag, and those of ICE restarts.")
    ]
    to: Annotated[Transceiver, about("The transceiver that has the call now.")]
    addresses: Annotated[
        list[Address], Meta(max_length=MAX_NAMES), about("The client's addresses that this worker has, if any.")
    ] = field(default_factory=list)


class Steered(Message, tag="path.steered"):
    """Paths of a call that moved come by this worker, without the transceiver that had the call."""

    addresses: Annotated[list[Address], Meta(max_length=MAX_NAMES), about("The client's addresses.")]


class NotSteered(Message, tag="path.not_steered"):
    """The worker has no link to where a call moved, and goes on sending to the transceiver that said so."""

    ufrag: CallUfrag


class Neighbours(Message, tag="neighbours"):
    """Transceivers to which this one could hand calls over: of many, some that have room."""

    neighbours: Annotated[list[Neighbour], Meta(max_length=MAX_NEIGHBOURS), about("The transceivers.")]


class Reserved(Message, tag="call.reserved"):
    """There is a place for that call, for two seconds."""


class Reserve(Request[Reserved], tag="call.reserve"):
    """Asks for a place for a call that is to be handed over."""

    ufrag: CallUfrag
    agent: Agent


class PartTaken(Message, tag="call.part_taken"):
    """The piece was put to those before it."""


class Part(Request[PartTaken], tag="call.part"):
    """Hands over a large part of a call before the rest, while the call goes on: a piece of it, behind those before."""

    ufrag: CallUfrag
    part: Annotated[PartNumber, about("The part, by any number; parts come one after the other.")]
    data: Annotated[bytes, Meta(max_length=MAX_PIECE_BYTES), about("The piece.")]


class Taken(Message, tag="call.taken"):
    """The call was understood and waits for `call.go_on`. Nothing is sent before that."""


class Take(Request[Taken], tag="call.take"):
    """Hands a call over. It is the sender's until that has said `call.go_on`."""

    ufrag: CallUfrag
    state: Annotated[bytes, Meta(max_length=MAX_STATE_BYTES), about("The session, as a value. It has keys.")]
    parts: Annotated[
        list[tuple[PartNumber, PartNumber]],
        Meta(max_length=MAX_PARTS),
        about("The places in the state of parts that went ahead, each with the number by which it went."),
    ] = field(default_factory=list)
    paths: Annotated[
        list[tuple[Address, Name]],
        Meta(max_length=MAX_PATHS),
        about("The client's addresses, each with the worker by which it comes."),
    ] = field(default_factory=list)


class GoOn(Message, tag="call.go_on"):
    """The call that was taken is the receiver's from now on."""

    ufrag: CallUfrag


class Dropped(Message, tag="call.dropped"):
    """The call stays with the sender, whatever was reserved or taken of it."""

    ufrag: CallUfrag


class Ticket(Message, tag="path.ticket"):
    """The head that media of a path carries past the workers (`wire.encapsulation`), when `path.up` has named it."""

    address: Annotated[Address, about("The client's address.")]
    number: Annotated[int, Meta(ge=1, le=0xFFFFFFFF), about("The flow's number.")]
    ticket: Annotated[bytes, Meta(min_length=8, max_length=8), about("What nobody else knows of it.")]


ToTransceiver = (
    Hello
    | Event
    | Offer
    | Open
    | Watch
    | Unwatch
    | End
    | (Handoff | List)
    | Ice
    | Check
    | Health
    | Neighbours
    | Steered
    | NotSteered
    | Reserve
    | Part
    | Warm
    | Take
    | GoOn
    | Dropped
    | (Moved | Ticket)
)
Replies = Refused | Answer | Opened | Watching | Ended | HandedOff | Listed | Checked | IceAnswer | HealthReport
ToSignaling = Hello | Event | Replies | Closed | Moved
ToWorker = Hello | Refused | PathUp | PathDown | Moved
ToSource = Hello | Refused | Reserved | PartTaken | Warmed | Taken
