"""The control messages by which signaling has a session get another agent, and learns which sessions there are."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from wire.fields import Agent, CallUfrag, Message, Owner, Request, Text, Ufrag, about

__all__ = ["MAX_LISTED", "HandedOff", "Handoff", "List", "Listed"]

MAX_LISTED = 1024  # sessions


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


class List(Request[Listed], tag="session.list"):
    """Asks which sessions there are."""

    agent: Annotated[Text, about("Only those of the agent with that name; empty for all.")] = ""
    owner: Annotated[Text, about("Only those on that account; empty for all.")] = ""
