"""A session's configuration: what ``session.update`` may say, what it means together with what was said before, and
what an agent is told of it."""

from __future__ import annotations

import copy
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from transceiver.agents import Settings

__all__ = ["Config", "Format", "Refused", "ResponseParams", "SemanticVad", "ServerVad", "TurnDetection", "refusal"]

Modalities = list[Literal["text", "audio"]]
_PIECES = ("audio", "input", "output")  # of these an update changes only what it names; all else it replaces


class Refused(ValueError):
    """What a client asked for and cannot have; ``code`` and ``param`` as in an ``error`` event."""

    def __init__(self, message: str, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


class _Strict(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


class Pcm(_Strict):
    type: Literal["audio/pcm"]
    rate: Literal[24000] = 24000


class Pcmu(_Strict):
    type: Literal["audio/pcmu"]


class Pcma(_Strict):
    type: Literal["audio/pcma"]


Format = Annotated[Pcm | Pcmu | Pcma, Field(discriminator="type")]


class ServerVad(_Strict):
    """A turn ends when the speaker has been silent for a fixed time."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(default=300, ge=0, le=5000)
    silence_duration_ms: int = Field(default=500, ge=20, le=10000)
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = Field(default=None, ge=5000, le=30000)


class SemanticVad(_Strict):
    """A turn ends soon where the speech sounds finished, and later where it does not."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


TurnDetection = ServerVad | SemanticVad


class Input(_Strict):
    format: Format = Pcm(type="audio/pcm")
    transcription: dict[str, Any] | None = None
    noise_reduction: dict[str, Any] | None = None
    turn_detection: Annotated[TurnDetection, Field(discriminator="type")] | None = ServerVad()


class Output(_Strict):
    format: Format = Pcm(type="audio/pcm")
    voice: str | dict[str, Any] = "default"
    speed: float = Field(default=1.0, ge=0.25, le=1.5)


class Audio(_Strict):
    input: Input = Input()
    output: Output = Output()


class Tool(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")
    type: Literal["function"] = "function"


class _Asked(_Strict):
    """What a session and a response may both ask for."""

    instructions: str = ""
    output_modalities: Modalities = Field(default=["audio"], min_length=1)
    tools: list[Tool] = Field(default=[], max_length=256)
    tool_choice: str | dict[str, Any] = "auto"
    max_output_tokens: Annotated[int, Field(ge=1)] | Literal["inf"] | None = "inf"
    parallel_tool_calls: bool | None = None
    prompt: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None


class Session(_Asked):
    """The ``session`` of a ``session.update``."""

    type: Literal["realtime"] = "realtime"
    model: str | None = None
    audio: Audio = Audio()
    include: list[str] | None = None
    tracing: str | dict[str, Any] | None = None
    truncation: str | dict[str, Any] = "auto"


class _ResponseOutput(_Strict):
    format: Format | None = None
    voice: str | dict[str, Any] | None = None


class _ResponseAudio(_Strict):
    output: _ResponseOutput = _ResponseOutput()


class ResponseParams(_Asked):
    """The ``response`` of a ``response.create``; ``input`` is None where the conversation is meant."""

    audio: _ResponseAudio = _ResponseAudio()
    conversation: str | None = "auto"
    input: list[dict[str, Any]] | None = Field(default=None, max_length=256)
    metadata: dict[str, Any] | None = None


def _fields(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields)


_MODELS = (Session, ResponseParams, Audio, Input, Output, ServerVad, SemanticVad, Pcm, Tool)
_NAMES = {name for model in _MODELS for name in model.model_fields}
_CODES = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}


def refusal(error: ValidationError, prefix: str = "") -> Refused:
    """What a client is told of the first thing that a model did not take."""
    what: ErrorDetails = error.errors(include_url=False, include_context=False)[0]
    kind = what["type"]
    last = len(what["loc"]) - 1
    param = prefix
    # Between the names, pydantic says which member of a union it tried.
    for i, part in enumerate(what["loc"]):
        if isinstance(part, int):
            param += f"[{part}]"
        elif part in _NAMES or (i == last and kind in _CODES) or not prefix:
            param += f".{part}" if param else part
    code = _CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    if code == "unknown_parameter":
        return Refused(f"Unknown parameter: '{param}'.", code, param)
    if code == "missing_required_parameter":
        return Refused(f"Missing required parameter: '{param}'.", code, param)
    return Refused(f"Invalid value for '{param}': {what['msg']}.", code, param)


class Config:
    """One session's configuration; ``values`` is what clients see of it."""

    def __init__(self, call: str, model: str) -> None:
        self.values = Session(model=model).model_dump()
        self._fixed = {"object": "realtime.session", "id": call, "model": model}
        self._session = Session(model=model)

    def update(self, session: object) -> None:
        """Takes what ``session`` names. Raises Refused, and changes nothing, where it is not valid."""
        if not isinstance(session, dict):
            raise Refused("'session' must be an object.", "invalid_type", "session")
        try:
            named = Session.model_validate(session).model_dump(exclude_unset=True)
        except ValidationError as e:
            raise refusal(e, "session") from None
        merged = _merged(self.values, named)
        self._session = Session.model_validate(merged)
        self.values = self._session.model_dump()

    @property
    def event(self) -> dict[str, Any]:
        """The ``session`` of ``session.created`` and ``session.updated``."""
        # The agent cannot be another one than it is, whatever the client says.
        return {**copy.deepcopy(self.values), **self._fixed}

    @property
    def turn_detection(self) -> TurnDetection | None:
        """How turns are found; None where the client commits them."""
        return self._session.audio.input.turn_detection

    @property
    def input_format(self) -> str:
        """ "audio/pcm", "audio/pcmu" or "audio/pcma"."""
        return self._session.audio.input.format.type

    @property
    def output_format(self) -> str:
        """The same of what is said."""
        return self._session.audio.output.format.type

    def settings(self, response: ResponseParams | None = None) -> Settings:
        """What the agent is told, with what a ``response`` asks otherwise."""
        values = self.values
        voice = values["audio"]["output"]["voice"]
        if response is not None:
            named = response.model_dump(exclude_unset=True)
            voice = response.audio.output.voice or voice
            values = {**values, **{key: named[key] for key in named if key in _fields(_Asked)}}
        voice = voice if isinstance(voice, str) else str(voice.get("id", ""))
        return Settings(
            instructions=values["instructions"],
            modality="audio" if "audio" in values["output_modalities"] else "text",
            voice="" if voice == "default" else voice,
            tools=tuple(values["tools"]),
            tool_choice=values["tool_choice"],
            more=copy.deepcopy(values),
        )


def _merged(into: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    out = dict(into)
    for key, value in named.items():
        both = key in _PIECES and isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if both else value
    return out
