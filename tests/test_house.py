"""The house: who may import whom, and how long a file may be."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
SOURCES = sorted({path for package in PACKAGES for path in (ROOT / package.replace(".", "/")).glob("*.py")})
# Which of our packages each may not know.
STRANGERS = {
    "edge": {"transceiver", "caller", "demo", "lab", "firsthop", "rtc"},
    "transceiver": {"edge", "bpf", "caller", "demo", "lab", "firsthop"},
    "caller": {"edge", "bpf", "transceiver", "demo", "lab", "firsthop"},
    "rtc": {"edge", "transceiver", "bpf", "caller", "demo", "lab", "firsthop"},
    "runtime": {"edge", "transceiver", "rtc", "bpf", "caller", "demo", "lab", "firsthop"},
    "wire": {"edge", "transceiver", "rtc", "bpf", "caller", "demo", "lab", "firsthop", "runtime"},
    "bpf": {"edge", "transceiver", "rtc", "caller", "demo", "lab", "firsthop", "runtime"},
}
NO_IO = {"asyncio", "socket", "select", "subprocess", "threading", "time"}
PURE = [
    "edge/relay/classify.py",
    "edge/signaling/cutting.py",
    "edge/signaling/ledger.py",
    "edge/signaling/pace.py",
    "edge/signaling/tokens.py",
]
PURE += ["wire/address.py", "wire/frames.py", "wire/stun.py", "wire/ufrag.py"]
PURE += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "transceiver/realtime").glob("*.py"))
# Of what both ends of a call need, these alone have to do with the loop, the clock or a library's own I/O.
AT_THE_RIM = {"rtc/pacer.py", "rtc/share.py", "rtc/dtls/secure.py", "rtc/dtls/transport.py", "rtc/sctp/association.py"}
PURE += sorted({str(path.relative_to(ROOT)) for path in (ROOT / "rtc").rglob("*.py")} - AT_THE_RIM)
PURE += ["transceiver/places.py"]


def imported(path: Path) -> set[str]:
    """Top-level names of everything that ``path`` imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports say the whole name"
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_a_house() -> None:
    assert len(SOURCES) > 30
    assert all((ROOT / path).is_file() for path in PURE)


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_package_imports_a_stranger(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert not imported(path) & STRANGERS.get(package, set())


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_a_file_is_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 450


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_a_file_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)) or path.name == "__main__.py"


@pytest.mark.parametrize("path", PURE)
def test_what_parses_and_decides_does_no_io_and_has_no_clock(path: str) -> None:
    names = imported(ROOT / path)
    # An address is packed by the socket module's inet_pton, which opens nothing.
    assert not names & (NO_IO - ({"socket"} if path == "wire/address.py" else set()))


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_what_a_file_offers_is_there(path: Path) -> None:
    tree = ast.parse(path.read_text())
    defined: set[str] = set()
    offered: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        defined.add(name.id)
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                assert node.value is not None
                offered = ast.literal_eval(node.value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {alias.asname or alias.name for alias in node.names}
    assert set(offered) <= defined
    assert offered == sorted(set(offered), key=lambda name: (not name.isupper(), not name[0].isupper(), name))
