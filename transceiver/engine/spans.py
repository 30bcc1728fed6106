"""The spans of requests to the engine: which model was asked, how soon it began to answer, and how that ended.

Nothing that was heard, thought or said is in them.
"""

from __future__ import annotations

from runtime.tracing.shapes import CHAT, SPEECH, TRANSCRIPTION, Shape
from runtime.tracing.spans import NOTHING, Span
from transceiver.engine.weights import EARS, MIND, VOICE

__all__ = ["asked", "ended"]

_MODELS: dict[str, tuple[Shape, str]] = {
    "ears": (TRANSCRIPTION, EARS.name),
    "mind": (CHAT, MIND.name),
    "voice": (SPEECH, VOICE.name),
}


def asked(part: str, under: Span, *, draft: bool) -> Span:
    """The span of a request to a ``part`` of the engine, under that one; none for questions about turns, which are of
    no call, and for what the mind reads ahead, which answers nobody."""
    if not under or part not in _MODELS or (part == "mind" and draft):
        return NOTHING
    shape, model = _MODELS[part]
    about = {
        "gen_ai.operation.name": shape.name.partition(" ")[0],
        "gen_ai.provider.name": "firsthop",
        "gen_ai.request.model": model,
        "firsthop.engine.draft": draft or None,
    }
    return under.child(shape, model, about)


def ended(span: Span, outcome: str) -> None:
    """Ends the span of a request that ended so (``firsthop_engine_requests``)."""
    span.put({"firsthop.upstream.outcome": outcome})
    # A draft that is refused because somebody waits is as it should be.
    if outcome not in ("answered", "cancelled") and not (
        outcome == "busy" and "firsthop.engine.draft" in span.attributes
    ):
        span.fail(outcome)
    span.end()
