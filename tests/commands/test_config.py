"""Configuration: file and environment, and what a person is told who got it wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from configuring import complaint, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge import supervisor as edge_supervisor
from firsthop.preflight import check_edge, check_transceiver
from firsthop.status_cli import Host
from runtime.address import Address, Prefix
from runtime.config import Config, load, rows
from runtime.config.edge import BROWSER_REFUSES
from runtime.errors import ConfigError
from transceiver import supervisor as transceiver_supervisor
from wire.keys import KeyFileError

pytestmark = pytest.mark.usefixtures("no_settings")

# --- what is read ---


def test_without_a_file_every_key_has_its_default() -> None:
    assert load(None).model_dump() == Config().model_dump()
    assert load(None).edge.media == "127.0.0.1:3478"
    assert load(None).transceiver.max_sessions == 200


def test_a_file_sets_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    config = load(written(tmp_path, '[edge]\nmedia = "203.0.113.10:5000"\n'))
    assert config.edge.media == "203.0.113.10:5000"
    assert config.edge.http == Config().edge.http
    assert config.transceiver == Config().transceiver


def test_the_environment_goes_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, '[edge]\nmedia = "203.0.113.10:5000"\nname = "west"\n[log]\nlevel = "debug"\n')
    monkeypatch.setenv("FIRSTHOP_EDGE__MEDIA", "[2001:db8::1]:4000")
    monkeypatch.setenv("FIRSTHOP_LOG__LEVEL", "error")
    config = load(path)
    assert (config.edge.media, config.edge.name, config.log.level) == ("[2001:db8::1]:4000", "west", "error")


def test_lists_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHOP_EDGE__CORES", "[0, 1]")
    monkeypatch.setenv("FIRSTHOP_EDGE__TRANSCEIVERS", '[{"id": 3, "endpoint": "tcp://192.0.2.1:7400"}]')
    config = load(None)
    assert config.edge.cores == (0, 1)
    assert [(peer.id, peer.endpoint) for peer in config.edge.transceivers] == [(3, "tcp://192.0.2.1:7400")]


def test_variables_of_the_command_line_are_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHOP_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("FIRSTHOP_TOKEN", "secret")
    assert load(None).edge.model_dump() == Config().edge.model_dump()


def test_a_configuration_is_not_changed_once_it_is_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(None).edge.name = "other"


def test_every_key_has_a_meaning() -> None:
    listed = list(rows())
    assert all(meaning for _, _, meaning in listed)
    assert len({key for key, _, _ in listed}) == len(listed)
    assert ("edge.media", "127.0.0.1:3478") in {(key, default) for key, default, _ in listed}


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[edge]\nmdeia = 1\n", "edge.mdeia: no such key"),
        ("[egde]\nmedia = 1\n", "egde: no such key"),
        ("media = 1\n", "media: no such key"),
        ("[[edge.transceivers]]\nid = 1\nendpoint = 'ipc:///x'\nport = 1\n", "edge.transceivers.0.port: no such key"),
        ("[[edge.transceivers]]\nid = 1\n", "edge.transceivers.0.endpoint:"),
        ("[[edge.transceivers]]\nid = 262144\nendpoint = 'ipc:///x'\n", "edge.transceivers.0.id:"),
        ("[[edge.transceivers]]\nid = 1\nendpoint = 'http://x'\n", "edge.transceivers.0.endpoint:"),
        ("[edge]\nmedia = 3478\n", "edge.media:"),
        ("[edge]\nmedia = 'edge.example:3478'\n", "edge.media: 'edge.example:3478' is not a numeric address"),
        ("[edge]\nmedia = '203.0.113.10'\n", "edge.media:"),
        ("[edge]\nmedia = '0.0.0.0:3478'\n", "edge.media: '0.0.0.0:3478': name one address"),
        ("[edge]\nmedia = '[::]:3478'\n", "edge.media:"),
        ("[edge]\nadvertise = '203.0.113.10:6000'\n", "edge.advertise: browsers send no media to port 6000"),
        ("[edge]\nname = 'a/b'\n", "edge.name:"),
        ("[edge]\nname = ''\n", "edge.name:"),
        ("[edge]\ncores = ['x']\n", "edge.cores.0:"),
        ("[edge]\nflow_entries = 1\n", "edge.flow_entries:"),
        ("[edge]\nrelays = ['10.0.0.5/24']\n", "edge.relays.0: '10.0.0.5/24' is not a network such as 198.51.100.7"),
        ("[edge]\nrelays = ['relay.example']\n", "edge.relays.0: 'relay.example' is not a network"),
        ("[edge]\nrelays = ['10.0.0.0/15']\n", "edge.relays: '10.0.0.0/15' is more than relays have"),
        ("[edge]\nrelays = ['2001:db8::/47']\n", "edge.relays: '2001:db8::/47' is more than relays have"),
        ("[edge]\nrelays = ['::/64']\n", "edge.relays: '::/64' has IPv4 addresses: write them as such"),
        ("[edge]\nrelays = ['10.0.0.5', '10.0.0.5/32']\n", "edge.relays: two relays are the same"),
        ("[edge]\nrelay_rate = 0\n", "edge.relay_rate:"),
        ("[log]\nlevel = 'loud'\n", "log.level:"),
        ("[transceiver]\nmax_sessions = 0\n", "transceiver.max_sessions:"),
        ("[transceiver]\nid = -1\n", "transceiver.id:"),
    ],
)
def test_a_wrong_key_is_named_with_its_file_in_one_line(tmp_path: Path, text: str, named: str) -> None:
    assert f": {named}" in complaint(tmp_path, text)


@pytest.mark.parametrize("text", ["[edge", "edge = ", "\0", "[edge]\nname = 'x'\nname = 'y'\n"])
def test_a_file_that_is_not_toml_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    complaint(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path / 'nowhere.toml'}: no such file \\(firsthop init makes one\\)$"):
        load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FIRSTHOP_EGDE__MEDIA", "127.0.0.1:3478", "environment variable FIRSTHOP_EGDE__MEDIA: no such section"),
        ("FIRSTHOP_EDGE__MDEIA", "127.0.0.1:3478", "environment: edge.mdeia: no such key"),
        ("FIRSTHOP_EDGE__MEDIA", "127.0.0.1:6000", "environment: edge.media: browsers send no media to port 6000"),
        ("FIRSTHOP_EDGE__CORES", "0,1", "environment: "),
        ("FIRSTHOP_EDGE", "{", "environment: "),
    ],
)
def test_a_wrong_variable_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        load(None)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("port", sorted({1, 80, 442, 444, 1023} | BROWSER_REFUSES))
def test_a_media_port_that_browsers_refuse_is_refused_here(tmp_path: Path, port: int) -> None:
    said = complaint(tmp_path, f"[edge]\nmedia = '203.0.113.10:{port}'\n")
    assert f"edge.media: browsers send no media to port {port}" in said


@pytest.mark.parametrize(
    "host",
    ["10.0.0.9", "172.31.0.9", "192.168.0.9", "100.64.0.9", "169.254.0.9", "127.0.0.1", "[fd00::9]", "[fe80::9]"],
)
def test_port_443_of_an_address_that_is_not_public_is_refused_but_for_one_that_clients_are_not_told(
    tmp_path: Path, host: str
) -> None:
    why = "browsers send no media to port 443 of "
    assert why in complaint(tmp_path, f"[edge]\nmedia = '{host}:443'\n")
    assert why in complaint(tmp_path, f"[edge]\nmedia = '203.0.113.10:443'\nadvertise = '{host}:443'\n")
    row = f"[[edge.edges]]\nname = 'a'\nmedia = '{host}:443'\nendpoint = 'tcp://10.0.0.1:7450'\n"
    assert why in complaint(tmp_path, row)
    behind = load(written(tmp_path, f"[edge]\nmedia = '{host}:443'\nadvertise = '203.0.113.10:443'\n")).edge
    assert (behind.media.port, behind.advertise) == (443, "203.0.113.10:443")


@pytest.mark.parametrize("port", [443, 1024, 3478, 6001, 6500, 65535])
def test_other_media_ports_are_taken(tmp_path: Path, port: int) -> None:
    assert load(written(tmp_path, f"[edge]\nmedia = '203.0.113.10:{port}'\n")).edge.media.endswith(f":{port}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("192.0.2.1:0", ("192.0.2.1", 0)), ("[2001:db8::1]:3478", ("2001:db8::1", 3478)), ("[::]:65535", ("::", 65535))],
)
def test_an_address_is_split(text: str, expected: tuple[str, int]) -> None:
    assert Address(text).pair == expected


def test_a_network_is_its_first_address_and_the_bits_of_sixteen_bytes_that_count() -> None:
    assert Prefix("198.51.100.16/28").mapped == (bytes(10) + b"\xff\xff" + bytes([198, 51, 100, 16]), 124)
    assert Prefix("198.51.100.7").mapped[1] == Prefix("2001:db8::7").mapped[1] == 128
    assert Prefix("2001:db8:7::/48").mapped == (b"\x20\x01\x0d\xb8\0\x07" + bytes(10), 48)


@pytest.mark.parametrize(
    "text",
    ["", ":", ":80", "192.0.2.1", "192.0.2.1:", "192.0.2.1:x", "host:80", "[::1]"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a numeric address and port"):
        Address(text)


ODD = ["", "x", "/", "..", "\0", "a\nb", "é", "\x7f", "/dev/null", "127.0.0.1:0", "127.0.0.1:65535", "[::]:9400"]
ODD += ["[fe80::1%lo]:3478", "127.0.0.1:\u0663\u0664\u0667\u0668", "127.0.0.1:+80", "127.0.0.1: 80"]
ODD += ["tcp://127.0.0.1:65535", "tcp://[::1]", "ipc:///x9999999999999999999999", "ipc://", f"ipc://{'/y' * 90}"]
ODD += ["http://", "http://[", "http://a:99999", "ws://[::1", "wss://x/ y", "..", "agents.echo", "__init__", "x" * 5000]
SCALARS = st.one_of(
    st.sampled_from(ODD), st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.sampled_from([0, 1, 65535])
)
NUMBERS = st.lists(st.sampled_from([0, 1, -1, 2**40]), max_size=3)
PEERS = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from([0, 1, 262143]), "endpoint": st.sampled_from(ODD)},
        optional={"processes": st.sampled_from([1, 2, 256])},
    ),
    max_size=2,
)
VALUES = st.one_of(SCALARS, NUMBERS, PEERS)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(value)
    return json.dumps(value)


# --- whatever is written in it ---


@settings(max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from([key for key, _, _ in rows()]), VALUES, min_size=1, max_size=3))
def test_a_configuration_is_taken_or_refused_in_one_line_whatever_is_written_in_it(
    host: dict[str, str], tmp_path: Path, wished: dict[str, Any]
) -> None:
    """An exception of another kind than these two would be a traceback."""
    file = written(tmp_path, "".join(f"{key} = {toml(value)}\n" for key, value in wished.items()))
    said = []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in host.items():
            patch.setenv(name, value)
        for key in wished:
            patch.delenv("FIRSTHOP_" + key.upper().replace(".", "__"), raising=False)
        patch.setattr(Path, "mkdir", lambda *_, **__: None)  # nothing is made outside of the test's own folder
        try:
            config = load(file)
            Host(config)
        except ConfigError as e:
            said.append(str(e))
        else:
            # As a child gets it.
            assert Config.model_validate_json(config.model_dump_json()).model_dump() == config.model_dump()
            for check in (check_edge, edge_supervisor.check, check_transceiver, transceiver_supervisor.check):
                try:
                    check(config)
                except (ConfigError, KeyFileError) as e:
                    said.append(str(e))
    assert not [line for line in said if not line or "\n" in line]
