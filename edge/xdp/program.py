"""The compiler and loader of ``bpf/steer.c`` with ``bpf/between.c``, and of ``bpf/overflow.c``. Only this module knows
BCC."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import bpf
from bpf.layout import Map, c_definitions
from bpf.verdicts import c_enum
from edge.xdp import kernel
from edge.xdp.compiled import Compiled, Kept

__all__ = ["SteeringError", "SteeringUnavailable", "load_programs", "require_what_bcc_needs"]

# CAP_PERFMON, because the verifier lets nobody else move a packet pointer by a length read from the packet.
_CAPABILITIES = {12: "CAP_NET_ADMIN", 38: "CAP_PERFMON", 39: "CAP_BPF"}


class SteeringError(Exception):
    """The error that XDP steering cannot be had as asked; one line says why and what to do. ``why`` is that in
    a word."""

    def __init__(self, line: str, why: str = "refused") -> None:
        super().__init__(line)
        self.why = why


class SteeringUnavailable(SteeringError):
    """The error that something which steering needs is missing here: one line says what, and how to get it."""

    def __init__(self, line: str) -> None:
        super().__init__(line, "not_loaded")


def require_what_bcc_needs() -> None:
    """Raises SteeringUnavailable for what BCC would report in many lines on stderr, or not at all. Programs that are
    compiled already need it too: what a host can do does not depend on what it did before."""
    with open("/proc/self/status") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    missing = [name for bit, name in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        raise SteeringUnavailable(
            f"no XDP steering: this process lacks {', '.join(missing)}; run it as root or grant these"
        )
    release = platform.release()
    places = [Path("/lib/modules", release, name) for name in ("build", "source")]
    in_kernel = Path("/sys/kernel/kheaders.tar.xz").exists()
    if chosen := os.environ.get("BCC_KERNEL_SOURCE"):
        places, in_kernel = [Path(chosen)], False
    if not in_kernel and not all(place.is_dir() for place in places):
        raise SteeringUnavailable(
            f"no XDP steering: no kernel headers at {' and '.join(map(str, places))};"
            f" install linux-headers-{release} or run scripts/setup as root"
        )
    if importlib.util.find_spec("bcc") is None:
        raise SteeringUnavailable(
            "no XDP steering: Python module bcc is missing; install Debian's python3-bpfcc (not bcc from PyPI)"
            " and use an environment made with --system-site-packages"
        )


def load_programs(
    constants: Mapping[str, int], maps: Mapping[str, Map], there: Mapping[str, int], kept: Path | None
) -> tuple[dict[str, int], dict[str, int]]:
    """Loads what is in ``bpf/``, which is compiled unless the folder ``kept`` has it. Returns the descriptors of the
    programs, ``steer`` and ``overflow``, and of ``maps``, ours to close.

    Maps that are ``there`` are used, by name, instead of new ones. Raises SteeringUnavailable.
    """
    folder = Path(bpf.__path__[0])
    # One text, because BCC takes neither programs nor uses of maps from an included file.
    sources = (f'#line 1 "{name}"\n{(folder / name).read_text()}' for name in ("between.c", "steer.c", "overflow.c"))
    text = c_enum() + c_definitions(maps) + "".join(sources)
    flags = [f"-I{folder}", *(f"-D{name}={value}" for name, value in constants.items())]
    headers = [path.read_text() for path in sorted(folder.glob("*.h"))]
    source = "\0".join([platform.release(), platform.machine(), text, *flags, *headers])
    store = Kept(kept) if kept is not None else None
    programs = store.get(source) if store is not None else None
    if programs is None:
        programs = _compiled(text, flags, maps)
        if store is not None:
            store.put(source, programs)
    loaded: dict[str, int] = {}
    made: dict[str, int] = {}
    try:
        for name, each in maps.items():
            made[name] = os.dup(there[name]) if name in there else kernel.create_map(name, *each.shape, each.kind.flags)
        for name, kind in (("steer", kernel.XDP_PROGRAM), ("overflow", kernel.TRACEPOINT_PROGRAM)):
            loaded[name] = kernel.load_program(f"firsthop_{name}", kind, programs[name].linked(made))
    except OSError as refused:
        for fd in (*made.values(), *loaded.values()):
            os.close(fd)
        raise _unavailable(refused, "".join(getattr(refused, "__notes__", ()))) from refused
    return loaded, made


def _compiled(text: str, flags: list[str], maps: Mapping[str, Map]) -> dict[str, Compiled]:
    """The programs of ``text``, by name. BCC is let go again at once."""
    from bcc import BPF

    with _stderr_kept() as said:
        module = None
        try:
            module = BPF(text=text.encode(), cflags=flags)
            names = {module[name.encode()].map_fd: name for name in maps}
            return {
                name: Compiled.unlinked(module.dump_func(f"firsthop_{name}".encode()), names)
                for name in ("steer", "overflow")
            }
        except Exception as error:
            raise _unavailable(error, said()) from error
        finally:
            if module is not None:
                module.cleanup()


def _unavailable(error: Exception, said: str) -> SteeringUnavailable:
    line = next((line for line in said.splitlines() if "error:" in line), (str(error) or repr(error)).splitlines()[0])
    failure = SteeringUnavailable(f"no XDP steering: the kernel program does not load: {line.strip()}")
    failure.add_note(said)
    return failure


@contextlib.contextmanager
def _stderr_kept() -> Iterator[Callable[[], str]]:
    """Captures what C code writes to descriptor 2; the function that it gives returns the text so far."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 2)
            yield lambda: os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
