"""The spans that there are: what each is called, where it is made, and which attributes it may have.

``docs/tracing.md`` has the table that is made of them. Names of attributes are those of OpenTelemetry's semantic
conventions where these have one; the others begin with ``firsthop``. None of them holds what was said, a key or an
address of a caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "BY_NAME",
    "CHAT",
    "PLACEMENT",
    "REALTIME",
    "REQUEST",
    "RESPONSE",
    "SESSION",
    "SETUP",
    "SHAPES",
    "SPEECH",
    "TOOL",
    "TRANSCRIPTION",
    "TURN",
    "UPSTREAM",
    "VOICE",
    "Shape",
    "markdown",
]


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of span. In its ``name`` two braces stand for what differs; ``under`` says which span is its parent."""

    name: str
    kind: Literal["internal", "server", "client"]
    made_by: str
    under: str
    means: str
    attributes: tuple[str, ...] = ()
    events: tuple[str, ...] = ()


REQUEST = Shape(
    "{}",
    "server",
    "signaling",
    "the `traceparent` of the request",
    "a request about a call, named by its method and route, of a caller with a good key",
    ("http.request.method", "http.route", "http.response.status_code", "url.scheme", "firsthop.call.id", "error.type"),
)
PLACEMENT = Shape(
    "placement",
    "internal",
    "signaling",
    "the request",
    "the choice of a transceiver; an event `tried` for each that was asked",
    (
        "gen_ai.agent.name",
        "firsthop.placement.candidates",
        "firsthop.placement.tries",
        "firsthop.placement.transceiver",
        "firsthop.placement.region",
        "firsthop.placement.why",
        "firsthop.placement.score_ms",
        "firsthop.placement.used_ratio",
        "firsthop.placement.runner_up",
        "error.type",
    ),
    ("tried",),
)
SESSION = Shape(
    "session",
    "internal",
    "transceiver",
    "the request",
    "a session from its beginning to its end, wherever it goes on meanwhile",
    (
        "firsthop.call.id",
        "gen_ai.conversation.id",
        "gen_ai.agent.name",
        "firsthop.codec",
        "firsthop.end.reason",
        "firsthop.media.packets_lost",
        "firsthop.media.frames_heard",
        "firsthop.media.frames_concealed",
        "firsthop.media.frames_on_time",
        "firsthop.media.frames_late",
        "firsthop.media.lost_down_ratio",
        "firsthop.media.jitter_ms",
        "firsthop.media.round_trip_ms",
        "error.type",
    ),
    ("taken_up", "agent_replaced", "ice_restarted", "path_moved"),
)
SETUP = Shape(
    "setup {}",
    "internal",
    "transceiver",
    "the session",
    "a phase of the setup: `ice` from the answer to a proven path, `dtls` to the keys, `audio` to the caller's first",
)
TURN = Shape(
    "turn",
    "internal",
    "transceiver",
    "the session",
    "a turn: what the caller says, and all that comes of it; it ends with what is heard last",
    ("firsthop.turn.committed", "firsthop.turn.first_audio_ms", "firsthop.turn.cut_off"),
    ("first_audio", "cut_off"),
)
VOICE = Shape(
    "caller speaks",
    "internal",
    "transceiver",
    "the turn",
    "the caller's speech, as turn detection finds its beginning and its end",
)
RESPONSE = Shape(
    "invoke_agent {}",
    "internal",
    "transceiver",
    "the turn",
    "a response while the agent makes it; it may be heard for longer",
    (
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.agent.name",
        "gen_ai.response.id",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "firsthop.response.status",
        "error.type",
    ),
)
TOOL = Shape(
    "execute_tool {}",
    "internal",
    "transceiver",
    "the turn",
    "a function call, until the client's output is there",
    ("gen_ai.operation.name", "gen_ai.tool.name", "gen_ai.tool.call.id", "gen_ai.tool.type", "firsthop.tool.answered"),
)

_REQUESTED = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.time_to_first_chunk",
    "http.request.method",
    "http.response.status_code",
    "url.full",
    "server.address",
    "server.port",
    "firsthop.upstream.outcome",
    "error.type",
)
_DRAFT = ("firsthop.engine.draft",)
_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
TRANSCRIPTION = Shape(
    "transcription {}",
    "client",
    "transceiver",
    "the turn",
    "speech to text, of the agents `pipeline` and `local`",
    (*_REQUESTED, *_DRAFT),
)
CHAT = Shape(
    "chat {}",
    "client",
    "transceiver",
    "the response; of `local` the turn",
    "the language model, of the agents `pipeline` and `local`",
    (*_REQUESTED, *_TOKENS),
)
SPEECH = Shape(
    "speech {}",
    "client",
    "transceiver",
    "the response; of `local` the turn",
    "text to speech of a sentence, of the agents `pipeline` and `local`",
    _REQUESTED,
)
REALTIME = Shape(
    "realtime {}",
    "client",
    "transceiver",
    "the response",
    "a response of the other server, of the agent `realtime`",
    (*_REQUESTED, *_TOKENS),
)

UPSTREAM = {"transcription": TRANSCRIPTION, "chat": CHAT, "speech": SPEECH, "realtime": REALTIME}
"""The shapes of requests to other servers, by service."""

SHAPES = (REQUEST, PLACEMENT, SESSION, SETUP, TURN, VOICE, RESPONSE, TRANSCRIPTION, CHAT, SPEECH, REALTIME, TOOL)
BY_NAME = {shape.name: shape for shape in SHAPES}


def markdown() -> str:
    """The table of all spans."""
    rows = ["| span | kind | made by | under | what it is | attributes |", "|---|---|---|---|---|---|"]
    for shape in SHAPES:
        name = "`METHOD route`" if shape is REQUEST else f"`{shape.name.replace('{}', '…')}`"
        attributes = "<br>".join(f"`{each}`" for each in shape.attributes)
        rows.append(f"| {name} | {shape.kind} | {shape.made_by} | {shape.under} | {shape.means} | {attributes} |")
    return "\n".join(rows) + "\n"
