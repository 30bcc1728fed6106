"""The agents, each on a line that writes down what it is asked to do."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest
import responding

from runtime.config import Agents
from runtime.tracing.spans import NOTHING, Span
from transceiver import agents
from transceiver.agents import Base, Cue, Item, Settings, echo, parrot


class Line:
    config = Agents()
    span: Span = NOTHING

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def say(self, pcm: bytes) -> None:
        self.asked.append(("say", pcm))

    def stop(self) -> None:
        self.asked.append(("stop",))

    def send_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        self.asked.append(("opus", payload, timestamp, marker))

    def emit(self, event: dict[str, Any]) -> None:
        self.asked.append(("emit", event))

    turn = ""

    def transcribing(self, item: str, delta: str) -> None: ...
    def cue(self, cue: Cue) -> None:
        self.asked.append(("cue", cue))

    def transcribed(self, item: str, text: str) -> None:
        self.asked.append(("transcribed", item, text))


def frame(number: int) -> bytes:
    return number.to_bytes(2, "little") * 480


# --- the folder ---


def test_every_file_of_the_folder_is_an_agent_with_a_class_agent() -> None:
    files = {path.stem for path in Path(agents.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(agents.names()) == files
    for name in agents.names():
        found = import_module(f"transceiver.agents.{name}").Agent
        assert found.unfit() or found is agents.find(name)
        assert found.__name__ == "Agent"
        assert issubclass(found, Base)
        assert found.hears in ("pcm", "opus")
        assert found.__module__ == f"transceiver.agents.{name}"
        assert inspect.getdoc(found)


def test_names_are_sorted() -> None:
    assert agents.names() == sorted(agents.names())
    assert {"echo", "parrot"} <= set(agents.names())


@pytest.mark.parametrize(
    "name",
    ["", "Parrot", "parrot ", "nobody", "__init__", "..", "os", "echo.Agent", "../echo", "transceiver.agents.echo"],
)
def test_nothing_else_can_be_asked_for(name: str) -> None:
    assert agents.find(name) is None


@pytest.mark.parametrize("name", [name for name in agents.names() if name != "local"])  # which starts its engine
async def test_every_agent_takes_everything_that_a_call_brings(name: str) -> None:
    found = agents.find(name)
    assert found is not None
    agent = found(Line())
    brought: list[tuple[str, tuple[Any, ...]]] = [
        ("heard", (frame(1), False)),
        ("heard_opus", (b"\xf8\xff\xfe", 0xFFFFFFFF, True)),
        ("speech_stopped", ()),
        ("speech_started", ()),
        ("speech_started", ()),
        ("dtmf", ("#",)),
        ("event", ({"type": "response.create"},)),
        ("event", ({"type": ""},)),
        ("close", ()),
    ]
    for method, arguments in brought:
        result = getattr(agent, method)(*arguments)
        if inspect.isawaitable(result):
            await result


def test_the_base_hears_and_says_nothing() -> None:
    line = Line()
    agent = Base(line)
    agent.speech_started()
    agent.heard(frame(1), True)
    agent.speech_stopped()
    agent.respond(Response())
    assert line.asked == []


# --- echo ---


def test_echo_sends_every_packet_straight_back() -> None:
    line = Line()
    agent = echo.Agent(line)
    assert agent.hears == "opus"
    agent.heard_opus(b"a", 1, True)
    agent.heard_opus(b"", 961, False)
    assert line.asked == [("opus", b"a", 1, True), ("opus", b"", 961, False)]


# --- parrot ---


class Response:
    """A response that writes down what is streamed into it."""

    id = "resp_1"
    cancelled = False

    def __init__(self, *items: Item, modality: Literal["audio", "text"] = "audio") -> None:
        self.items = items
        self.settings = Settings(modality=modality)
        self.made: list[tuple[Any, ...]] = []

    def audio(self, pcm: bytes) -> None:
        self.made.append(("audio", pcm))

    def transcript(self, delta: str) -> None:
        self.made.append(("transcript", delta))

    def text(self, delta: str) -> None:
        self.made.append(("text", delta))

    def call(self, name: str, arguments: str, call_id: str = "") -> None:
        self.made.append(("call", name))

    def done(self, usage: dict[str, Any] | None = None) -> None:
        self.made.append(("done",))

    def fail(self, message: str, code: str = "agent_failed") -> None:
        self.made.append(("fail", message))


def answer(response: Response) -> list[tuple[Any, ...]]:
    parrot.Agent(Line()).respond(response)
    return response.made


def test_parrot_says_back_what_was_said_last() -> None:
    first, last = Item("1", role="user", pcm=frame(1)), Item("2", role="user", pcm=frame(2))
    made = answer(Response(first, Item("3", role="assistant", text="no"), last))
    assert made == [("transcript", "(your own words)"), ("audio", frame(2)), ("done",)]


def test_parrot_writes_back_what_was_written() -> None:
    assert answer(Response(Item("1", role="user", text="good day"))) == [("text", "good day"), ("done",)]


def test_parrot_writes_where_nobody_listens() -> None:
    response = Response(Item("1", role="user", text="good day", pcm=frame(1)), modality="text")
    assert answer(response) == [("text", "good day"), ("done",)]


def test_parrot_says_30_seconds_at_most() -> None:
    made = answer(Response(Item("1", role="user", pcm=b"".join(frame(i) for i in range(5000)))))
    assert ("audio", b"".join(frame(i) for i in range(3500, 5000))) in made


def test_parrot_has_nothing_to_say_of_its_own() -> None:
    assert answer(Response()) == [("done",)]


# --- agents of other packages ---


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution with an agent, one that is none, and one that has a name of ours."""
    (tmp_path / "oracle.py").write_text(
        "from transceiver.agents import Base\nclass Agent(Base):\n    pass\nother = 7\n"
        "class Old(Base):\n    version = 1\nclass Now(Base):\n    version = 2\n"
    )
    metadata = tmp_path / "oracle-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: oracle\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[firsthop.agents]\noracle = oracle:Agent\nodd = oracle:other\necho = oracle:Agent\n"
        "old = oracle:Old\nnow = oracle:Now\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    agents._others.cache_clear()
    yield
    agents._others.cache_clear()


@pytest.mark.usefixtures("installed")
def test_another_package_brings_agents() -> None:
    assert {"oracle", "odd"} <= set(agents.names())
    found = agents.find("oracle")
    assert found is not None
    assert found.__module__ == "oracle"
    assert issubclass(found, Base)


@pytest.mark.usefixtures("installed")
def test_ours_go_first_and_what_is_no_agent_is_refused() -> None:
    assert agents.find("echo") is echo.Agent
    with pytest.raises(TypeError, match="odd = oracle:other is no agent"):
        agents.find("odd")


@pytest.mark.usefixtures("installed")
def test_an_agent_of_another_version_of_the_interface_is_refused_with_a_line_that_says_so() -> None:
    with pytest.raises(TypeError) as raised:
        agents.find("old")
    why = "entry point old = oracle:Old is for version 1 of transceiver.agents, and this is version 2"
    assert str(raised.value) == why
    now = agents.find("now")
    assert now is not None
    assert now.version == agents.VERSION


def test_the_agent_in_the_interfaces_own_words_answers() -> None:
    written = (agents.__doc__ or "").partition("::\n\n")[2].partition("\n\n**")[0]
    module: dict[str, Any] = {"__name__": "oracle"}
    exec(inspect.cleandoc(written), module)
    agent = module["Agent"](Line())
    assert agent.version == agents.VERSION
    response = responding.Response([Item(id="item_1", role="user", pcm=frame(7)), responding.said("well")])
    agent.respond(response)
    assert (response.pcm, response.said, response.ended) == (frame(7), "(your own words)", "done")
