"""The models of a transceiver, and calls that ask for a version of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from signaling_run import Signaling

from runtime.config import Config
from runtime.errors import ConfigError
from transceiver import agents
from transceiver.models import Models
from transceiver.refusing import RequestError
from transceiver.supervisor import check

PACKAGED = agents.versions()["echo"]


@pytest.mark.parametrize("asked", ["", "parrot", "parrot@7b", "parrot@"])
def test_a_model_is_found_by_its_name_and_version(asked: str) -> None:
    name, agent = Models("parrot", {"parrot": "7b"}).find(asked)
    assert name == "parrot"
    assert agent is agents.find("parrot")


def test_the_version_that_nobody_told_is_that_of_the_package() -> None:
    models = Models("parrot", {"parrot": "7b"})
    assert models.versions == {**agents.versions(), "parrot": "7b"}
    assert models.find(f"echo@{PACKAGED}")[0] == "echo"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("parrot@8", "no version '8' of 'parrot': there is parrot@7b"),
        (f"parrot@{PACKAGED}", "there is parrot@7b"),
        ("echo@7b", f"no version '7b' of 'echo': there is echo@{PACKAGED}"),
        ("whisper@7b", "no agent called 'whisper': there is"),
        ("@7b", "no agent called '@7b'"),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(asked: str, why: str) -> None:
    with pytest.raises(RequestError, match=why) as refused:
        Models("parrot", {"parrot": "7b"}).find(asked)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


async def test_a_session_has_the_version_that_it_asks_for_or_none(tmp_path: Path) -> None:
    signaling = Signaling(tmp_path, versions={"parrot": "7b"})
    try:
        await signaling.send("health", request=1)
        report = (await signaling.hears("health"))["report"]
        assert {each["name"]: each["version"] for each in report["models"]}["parrot"] == "7b"
        await signaling.send("session.open", request=2, agent="parrot@7b")
        await signaling.hears("session.opened")
        assert (await signaling.event("session.created"))["session"]["model"] == "parrot@7b"
        await signaling.send("session.open", request=3, agent="parrot@8")
        refused = await signaling.hears("session.refused")
        assert (refused["request"], refused["code"], refused["param"]) == (3, "model_not_found", "model")
        assert refused["message"] == "no version '8' of 'parrot': there is parrot@7b"
        await signaling.send("session.check", request=4, agent="parrot@8")
        assert (await signaling.hears("session.refused"))["code"] == "model_not_found"
    finally:
        await signaling.close()


def test_a_version_of_an_agent_that_is_not_there_is_a_line(tmp_path: Path) -> None:
    config = Config(agents={"versions": {"whisper": "1"}}, cluster={"keys": tmp_path / "none"})
    with pytest.raises(ConfigError, match=r"agents.versions: no agent called 'whisper', there is"):
        check(config)
