"""A session's configuration: what ``session.update`` may say, how it joins what was said before, and what an agent is
told of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from pydantic_core import ErrorDetails

from transceiver.agents import Settings

__all__ = [
    "Config",
    "ConfigState",
    "Format",
    "InvalidRequest",
    "ResponseParams",
    "SemanticVad",
    "ServerVad",
    "TurnDetection",
    "refusal",
    "utf8_bytes",
]

# One fault in a list is enough: to find thousands would take its time.
Modalities = Annotated[list[Literal["text", "audio"]], FailFast()]
_PIECES = ("audio", "input", "output")  # of these an update changes only what it names; all else it replaces
# Of what a session is configured with, as JSON: it is said again in every session.updated, and told to every agent.
_MOST_INSTRUCTIONS_BYTES = 16 << 10
_MOST_TOOLS_BYTES = 64 << 10
_MOST_OTHER_BYTES = 16 << 10  # all else together
_MOST_METADATA = 16  # pairs
_MOST_FIELDS = 64  # of a map that is looked through for such as nobody knows


class InvalidRequest(ValueError):
    """The error for what a client asked for and cannot have; ``code`` and ``param`` are as in an ``error`` event."""

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
    """A turn ends soon where the speech sounds finished, and later where it does not. Clients are told by ``judge`` who
    says so, and cannot choose."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    judge: str | None = Field(default=None, max_length=64)
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
    """A function, which the client runs. Other tools are not served: nothing here connects to a server that a client
    names."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", strict=True)
    type: Literal["function"] = "function"
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolChoice(_Strict):
    type: Literal["function"]
    name: str


class _Asked(_Strict):
    """The fields that a session and a response may both set."""

    instructions: str = ""
    output_modalities: Modalities = Field(default=["audio"], min_length=1)
    tools: Annotated[list[Tool], FailFast()] = Field(default=[], max_length=256)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice = "auto"
    max_output_tokens: Annotated[int, Field(ge=1)] | Literal["inf"] | None = "inf"
    parallel_tool_calls: bool | None = None
    prompt: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None


class Session(_Asked):
    """The ``session`` of a ``session.update``."""

    type: Literal["realtime"] = "realtime"
    model: str | None = None
    audio: Audio = Audio()
    include: list[str] | None = Field(default=None, fail_fast=True)
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
    input: list[dict[str, Any]] | None = Field(default=None, fail_fast=True, max_length=256)
    metadata: dict[str, Any] | None = Field(default=None, max_length=_MOST_METADATA)


def _fields(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields)


_MODELS = (Session, ResponseParams, Audio, Input, Output, ServerVad, SemanticVad, Pcm, Tool, ToolChoice)
_NAMES = {name for model in _MODELS for name in model.model_fields}
_CODES = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}


def refusal(error: ValidationError, prefix: str = "") -> InvalidRequest:
    """The error for the first thing that a model did not take."""
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
        return InvalidRequest(f"Unknown parameter: '{param}'.", code, param)
    if code == "missing_required_parameter":
        return InvalidRequest(f"Missing required parameter: '{param}'.", code, param)
    return InvalidRequest(f"Invalid value for '{param}': {what['msg']}.", code, param)


def _named(model: BaseModel, raw: dict[str, Any]) -> dict[str, Any]:
    """The fields that ``raw``, of which ``model`` was made, names. Its large parts are not copied."""
    named: dict[str, Any] = {}
    for name in model.model_fields_set:
        value = getattr(model, name)
        if name == "tools":
            value = [{"type": "function", **tool} for tool in raw[name]]
        elif isinstance(value, BaseModel):
            value = value.model_dump(exclude_unset=True)
        named[name] = value
    return named


def _check_sizes(values: Mapping[str, Any], prefix: str) -> None:
    """Raises InvalidRequest where ``values`` are larger than a session's configuration may be."""
    instructions = values.get("instructions")
    if isinstance(instructions, str) and utf8_bytes(instructions) > _MOST_INSTRUCTIONS_BYTES:
        param = f"{prefix}.instructions"
        why = f"'{param}' has at most {_MOST_INSTRUCTIONS_BYTES} bytes."
        raise InvalidRequest(why, "string_above_max_length", param)
    if _json_bytes(values.get("tools"), prefix) > _MOST_TOOLS_BYTES:
        param = f"{prefix}.tools"
        raise InvalidRequest(f"'{param}' has at most {_MOST_TOOLS_BYTES} bytes as JSON.", "invalid_value", param)
    if len(values) > _MOST_FIELDS:
        raise InvalidRequest(f"'{prefix}' has at most {_MOST_FIELDS} fields.", "unknown_parameter", prefix)
    rest = {name: value for name, value in values.items() if name not in ("instructions", "tools", "input")}
    if _json_bytes(rest, prefix) > _MOST_OTHER_BYTES:
        why = f"'{prefix}' has at most {_MOST_OTHER_BYTES} bytes as JSON beside instructions and tools."
        raise InvalidRequest(why, "invalid_value", prefix)


def utf8_bytes(text: str) -> int:
    """The number of bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _json_bytes(value: Any, prefix: str) -> int:
    try:
        msgspec.msgpack.encode(value)  # as it goes to an edge
    except OverflowError:
        raise InvalidRequest(f"'{prefix}' has a number of more than 64 bits.", "invalid_value", prefix) from None
    return len(msgspec.json.encode(value))


_Shape = TypeVar("_Shape", bound=_Asked)


class ConfigState(msgspec.Struct, frozen=True, array_like=True):
    """A configuration as a value: the call's public id, its model, what was set, and the fields that are locked."""

    call: str
    model: str
    values: dict[str, Any]
    locked: list[str]


class Config:
    """One session's configuration. Its content is never changed, only replaced, so nothing of it is copied."""

    def __init__(self, call: str, model: str, judge: str = "loudness") -> None:
        self._judge = judge
        self._initial = Session(model=model).model_dump()
        self._values = self._initial
        self._audio = Audio()
        self._fixed = {"object": "realtime.session", "id": call, "model": model}
        self._locked: frozenset[str] = frozenset()

    def update(self, session: object) -> None:
        """Takes the fields that ``session`` names. Where one is not valid, or not the client's to set, it raises
        InvalidRequest and changes nothing."""
        if not isinstance(session, dict):
            raise InvalidRequest("'session' must be an object.", "invalid_type", "session")
        if session.get("type") == "transcription":
            why = "Sessions that only transcribe are not served: 'session.type' is 'realtime'."
            raise InvalidRequest(why, "invalid_value", "session.type")
        asked = self._read(Session, session, "session")
        merged = _merged(self._values, _named(asked, session))
        _check_sizes(merged, "session")
        if "audio" in asked.model_fields_set:
            self._audio = Audio.model_validate(merged["audio"])
            self._name_judge()
            merged["audio"] = self._audio.model_dump()
        self._values = merged

    def _name_judge(self) -> None:
        if isinstance(turns := self._audio.input.turn_detection, SemanticVad):
            turns.judge = self._judge

    def lock(self, names: Iterable[str]) -> None:
        """Forbids the client to change or see these fields of the session from now on. Raises InvalidRequest where
        there is no such field."""
        locked = list(names)
        for i, name in enumerate(locked):
            if name not in _fields(Session):
                raise InvalidRequest(f"There is no field '{name[:64]}' to lock.", "invalid_value", f"locked[{i}]")
        self._locked = frozenset(locked)

    def rename(self, model: str) -> None:
        """Takes note that the session is another model's from now on."""
        self._initial = {**self._initial, "model": model}
        self._values = {**self._values, "model": model}
        self._fixed = {**self._fixed, "model": model}

    def export(self) -> ConfigState:
        """All of it."""
        return ConfigState(self._fixed["id"], self._fixed["model"], self._values, sorted(self._locked))

    @classmethod
    def taken_up(cls, state: ConfigState, judge: str = "loudness") -> Config:
        """The configuration that ``export`` gave. Raises InvalidRequest where it cannot have."""
        config = cls(state.call, state.model, judge)
        config._read(Session, state.values, "session")
        if missing := config._initial.keys() - state.values.keys():
            raise InvalidRequest(f"'session' has no {sorted(missing)[0]}.", "missing_required_parameter", "session")
        config._audio = Audio.model_validate(state.values["audio"])
        config._name_judge()
        config._values = {**state.values, "audio": config._audio.model_dump()}
        config.lock(state.locked)
        return config

    def response(self, response: object) -> tuple[ResponseParams, Settings]:
        """The parameters of a ``response.create``, and what the agent is told. Raises InvalidRequest."""
        raw = response if isinstance(response, dict) else {}
        params = self._read(ResponseParams, raw, "response")
        named = _named(params, raw)
        voice = params.audio.output.voice or self._values["audio"]["output"]["voice"]
        return params, _settings(
            {**self._values, **{key: named[key] for key in named if key in _fields(_Asked)}}, voice
        )

    def _read(self, shape: type[_Shape], named: dict[str, Any], prefix: str) -> _Shape:
        if locked := sorted(self._locked & named.keys()):
            param = f"{prefix}.{locked[0]}"
            raise InvalidRequest(f"'{param}' was set by who made the key, and is not yours to change.", "locked", param)
        _check_sizes(named, prefix)
        try:
            return shape.model_validate(named)
        except ValidationError as e:
            raise refusal(e, prefix) from None

    @property
    def event(self) -> dict[str, Any]:
        """The ``session`` of ``session.created`` and ``session.updated``; not to be changed."""
        hidden = {name: self._initial[name] for name in self._locked}
        # The agent cannot be another one than it is, whatever the client says.
        return {**self._values, **hidden, **self._fixed}

    @property
    def turn_detection(self) -> TurnDetection | None:
        """The way in which turns are found; None where the client commits them."""
        return self._audio.input.turn_detection

    @property
    def input_format(self) -> str:
        """ "audio/pcm", "audio/pcmu" or "audio/pcma"."""
        return self._audio.input.format.type

    @property
    def output_format(self) -> str:
        """The same of our speech."""
        return self._audio.output.format.type

    def settings(self) -> Settings:
        """The settings that the agent is told."""
        return _settings(self._values, self._values["audio"]["output"]["voice"])


def _settings(values: dict[str, Any], voice: Any) -> Settings:
    voice = voice if isinstance(voice, str) else str(voice.get("id", ""))
    return Settings(
        instructions=values["instructions"],
        modality="audio" if "audio" in values["output_modalities"] else "text",
        voice="" if voice == "default" else voice,
        tools=tuple(values["tools"]),
        tool_choice=values["tool_choice"],
        more=values,
    )


def _merged(into: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    out = dict(into)
    for key, value in named.items():
        both = key in _PIECES and isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if both else value
    return out
