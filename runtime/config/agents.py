"""The sections of the agents that come with firsthop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from runtime.config.section import Section, url_of

__all__ = ["Agents", "Engine", "Pipeline", "Upstream"]


AgentName = Annotated[str, Field(pattern=r"^[\x21-\x3f\x41-\x7e]{1,128}$")]
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]{1,64}$")]


class Pipeline(Section):
    """The agent ``pipeline``: three services that speak OpenAI's HTTP."""

    transcription_url: Annotated[str, url_of("http", "https")] = Field(
        "http://127.0.0.1:8000/v1", description="base URL of speech to text"
    )
    transcription_model: str = Field("whisper-1", description="its model")
    chat_url: Annotated[str, url_of("http", "https")] = Field(
        "http://127.0.0.1:8000/v1", description="base URL of the language model"
    )
    chat_model: str = Field("default", description="its model")
    speech_url: Annotated[str, url_of("http", "https")] = Field(
        "http://127.0.0.1:8000/v1", description="base URL of text to speech"
    )
    speech_model: str = Field("tts-1", description="its model")
    voice: str = Field("alloy", description="the voice where the session names none")
    instructions: str = Field(
        "You are speaking with somebody. Answer in one or two short sentences, without lists or markup.",
        description="the instructions where the session has none; empty: none are sent",
    )
    max_tokens: int | None = Field(
        None, ge=1, description="limit of one answer, as `max_tokens`, where the session sets none that is lower"
    )
    temperature: float | None = Field(None, ge=0, le=2, description="how freely words are chosen; unset: as served")
    first_piece: Literal["words", "clause", "sentence"] = Field(
        "clause",
        description="what is spoken first: four words, or a few more, where no clause ends sooner; what ends "
        "at a comma; or a whole sentence",
    )
    transcribes_early: bool = Field(
        True, description="whether a pause of 200 ms is transcribed already, though the caller may speak on"
    )
    key_file: Path | None = Field(None, description="file with the bearer token for all three")
    timeout_s: float = Field(15.0, gt=0, le=600, description="seconds that one of the services may be silent")


class Upstream(Section):
    """The agent ``realtime``: another server of the Realtime protocol."""

    url: Annotated[str, url_of("ws", "wss")] = Field(
        "wss://api.openai.com/v1/realtime", description="WebSocket URL of the upstream server"
    )
    model: str = Field("gpt-realtime", description="the model to ask upstream for")
    key_file: Path | None = Field(None, description="file with its bearer token")
    turns: Literal["auto", "session", "upstream"] = Field(
        "auto",
        description="who finds the caller's turns: the session here, which sends each whole, or upstream, which hears "
        "all as it comes; auto asks upstream to leave them to the session, and lets it where it does not",
    )
    timeout_s: float = Field(15.0, gt=0, le=600, description="seconds within which upstream has to say something")


class Engine(Section):
    """The small models that come in packages, in one process a host (docs/models.md)."""

    run: Path = Field(Path("/run/firsthop"), description="where the process has its socket; its owner alone may enter")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="what it computes on; auto: CUDA for those models whose library sees it"
    )
    calls: int = Field(
        8, ge=1, le=64, description="conversations that the language model keeps in mind (23 MiB each); more take turns"
    )
    idle_s: float = Field(
        60.0, ge=1, le=86400, description="the process ends when nobody has been connected for so many seconds"
    )


class Agents(Section):
    image_urls: Literal["data", "https"] = Field(
        "data", description="URLs of pictures that callers may show: data URLs, or also https of public hosts"
    )
    versions: dict[AgentName, Version] = Field(
        {},
        description='the versions of agents, as in `{ pipeline = "7b" }`: callers may ask for `pipeline@7b`; those of '
        "others are their packages'",
    )
    engine: Engine = Engine()  # type: ignore[call-arg]
    pipeline: Pipeline = Pipeline()  # type: ignore[call-arg]
    realtime: Upstream = Upstream()  # type: ignore[call-arg]
