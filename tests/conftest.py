"""Tests that need the kernel's help say so, and skip where they cannot have it. In CI they fail instead: a test
that silently never runs proves nothing."""

from __future__ import annotations

import ctypes
import os
import secrets
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator

import packets as p
import pytest
from hypothesis import HealthCheck, settings
from privileges import CLONE_NEWNET, InNamespace, cannot_run

from lab.appliance import Appliance
from lab.network import Lab

COMPILED = "FIRSTHOP_EDGE__COMPILED"
PYTHON = "FIRSTHOP_COMPILED"

# Other examples each time in CI, else always the same, as with fuzzers' seeds (tests/support/fuzzing.py). What failed
# is printed with the line that has it fail again. How slow a machine is says nothing about what it runs.
settings.register_profile(
    "firsthop",
    max_examples=50,
    derandomize=os.environ.get("CI") != "true",
    print_blob=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("firsthop")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--one-host",
        action="store_true",
        help="in the lab, transceivers are on the edge's host, so that media goes past the workers",
    )


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault(PYTHON, "off")  # tests change what a compiled class does not let them
    Appliance.one_host = config.getoption("--one-host")
    if hasattr(config, "workerinput"):  # one of several processes that pytest-xdist started
        be_a_host()
    elif COMPILED not in os.environ:
        # What one test compiled, no other needs to: a second of a core for each start of an edge with XDP.
        folder = tempfile.TemporaryDirectory(prefix="firsthop-compiled-")
        os.environ[COMPILED] = folder.name
        config.add_cleanup(folder.cleanup)


def be_a_host() -> None:
    """Puts this process on a network of its own, so that the ports of tests side by side are different ones."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def pytest_xdist_auto_num_workers() -> int:
    """Two processes a core, because most tests wait for a call to go on. Without root none can have a network of its
    own, so all tests run in one process."""
    return 2 * len(os.sched_getaffinity(0)) if os.geteuid() == 0 else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests in the lab go first: processes that share the rest out are then done at about the same time."""
    long = {item.path for item in items if item.get_closest_marker("needs_root") or _in_lab(item)}
    items.sort(key=lambda item: item.path not in long)


def _in_lab(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and not {"lab", "appliance", "two_cores"}.isdisjoint(item.fixturenames)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_root") and os.geteuid() != 0:
        cannot_run("needs root, to load kernel programs and make network namespaces: run with sudo")


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Client, edge and transceiver as three hosts; with as many edges and transceiver hosts as the module says in
    LAB_EDGES and LAB_TRANSCEIVERS."""
    if os.geteuid() != 0:
        cannot_run("needs root, for a lab of network namespaces: run with sudo")
    edges, transceivers = (getattr(request.module, name, 1) for name in ("LAB_EDGES", "LAB_TRANSCEIVERS"))
    with Lab(edges=edges, transceivers=transceivers) as lab:
        yield lab


@pytest.fixture(scope="module")
def appliance(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """The whole of it on the lab's hosts, with XDP."""
    with Appliance(tmp_path_factory.mktemp("appliance"), lab=lab) as appliance:
        yield appliance


@pytest.fixture(scope="module")
def two_cores(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """The same with a transceiver on each of two cores: ``media-1`` and ``media-2``. Calls go to both, though one may
    seem nearer on a busy machine."""
    cores, folder = sorted(os.sched_getaffinity(0))[:2], tmp_path_factory.mktemp("two-cores")
    with Appliance(folder, lab=lab, transceiver_cores=cores, placement="spread") as appliance:
        yield appliance


@pytest.fixture
def in_namespace() -> Iterator[InNamespace]:
    """Runs a function in a network namespace with a veth pair: ``fh0``, 198.18.0.1, and its other end ``fh1``."""
    name = f"fh-steer-{os.getpid()}-{secrets.token_hex(3)}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    def enter(function: Callable[[], None]) -> None:
        """In a thread, because a namespace belongs to a thread and goes with it."""
        failures: list[BaseException] = []

        def inside() -> None:
            try:
                with open(f"/run/netns/{name}") as file:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(file.fileno(), CLONE_NEWNET) < 0:
                        raise OSError(ctypes.get_errno(), "setns")
                function()
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "add", "fh0", "type", "veth", "peer", "name", "fh1")
        for step in (
            ("addr", "add", f"{p.EDGE}/24", "dev", "fh0"),
            ("link", "set", "lo", "up"),
            ("link", "set", "fh0", "up"),
            ("link", "set", "fh1", "up"),
        ):
            ip("-n", name, *step)
        yield enter
    finally:
        ip("netns", "del", name)
