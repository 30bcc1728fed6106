"""The control messages by which a session gets another agent, here or at another transceiver, and by which signaling
learns which sessions there are.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from wire.fields import (
    MAX_PARTS,
    Agent,
    CallUfrag,
    Message,
    Neighbour,
    Owner,
    PartNumber,
    Request,
    Text,
    Ufrag,
    about,
)

__all__ = ["MAX_LISTED", "MAX_STATE_BYTES", "HandedOff", "Handoff", "List", "Listed", "Warm", "Warmed"]

MAX_LISTED = 1024  # sessions
MAX_STATE_BYTES = 4 << 20  # of a call that is handed over, besides the parts that went ahead


class HandedOff(Message, tag="session.handed_off"):
    """Another agent has the session from now on."""

    agent: Annotated[Text, about("Its name.")]


class Listed(Message, tag="session.listed"):
    """Sessions of the transceiver, those that began first."""

    sessions: Annotated[
        list[tuple[Ufrag, Text]], Meta(max_length=MAX_LISTED), about("Each session's ufrag and its agent's name.")
    ] = field(default_factory=list)
    more: Annotated[bool, about("Whether there are more of them.")] = False


class Handoff(Request[HandedOff], tag="session.handoff"):
    """Asks for another agent in a session that exists. It is warmed beside the present one, and takes over when nobody
    speaks, or after ten seconds. The reply comes then, or after 40 s at the latest. Where it is a refusal, the present
    one stays."""

    ufrag: CallUfrag
    agent: Agent
    owner: Owner = ""
    to: Annotated[
        Neighbour | None,
        about("The transceiver that has the agent, and to which the call is to move with it; nil for this one."),
    ] = None


class Warmed(Message, tag="call.warmed"):
    """The agent is ready: the call is waited for, for fifteen seconds."""

    agent: Annotated[Text, about("Its name.")]
    packets: Annotated[bool, about("Whether it passes packets on as they are, instead of PCM.")] = False


class Warm(Request[Warmed], tag="call.warm"):
    """Asks for the agent for which `call.reserve` has a place, warmed with what the call has been so far, while that
    goes on where it is. The reply comes after 30 s at the latest. The call's next `call.take` is then taken with this
    agent, whatever its state says."""

    ufrag: CallUfrag
    state: Annotated[
        bytes, Meta(max_length=MAX_STATE_BYTES), about("The session as it is now, as a value. It has keys.")
    ]
    parts: Annotated[
        list[tuple[PartNumber, PartNumber]],
        Meta(max_length=MAX_PARTS),
        about("The places in the state of parts that went ahead, each with the number by which it went."),
    ] = field(default_factory=list)


class List(Request[Listed], tag="session.list"):
    """Asks which sessions there are."""

    agent: Annotated[Text, about("Only those of the agent with that name; empty for all.")] = ""
    owner: Annotated[Text, about("Only those on that account; empty for all.")] = ""
