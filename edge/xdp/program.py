"""The compiler and loader of ``bpf/steer.c`` and ``bpf/overflow.c``. Only this module knows BCC."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import bpf
from bpf.layout import Map, c_definitions
from bpf.verdicts import c_enum

__all__ = ["SteeringError", "SteeringUnavailable", "compile_program", "require_what_bcc_needs"]

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
    """Raises SteeringUnavailable for what BCC would report in many lines on stderr, or not at all."""
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


def compile_program(
    constants: Mapping[str, int], maps: Mapping[str, Map], there: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Compiles and loads what is in ``bpf/``. Returns the descriptors of the programs, ``steer`` and ``overflow``, and
    of ``maps``, ours to close.

    Maps that are ``there`` are used, by name, instead of new ones. BCC is let go again at once: from here on
    descriptors are enough. Raises SteeringUnavailable.
    """
    try:
        from bcc import BPF
    except ImportError as error:
        raise SteeringUnavailable(
            "no XDP steering: Python module bcc is missing; install Debian's python3-bpfcc (not bcc from PyPI)"
            " and use an environment made with --system-site-packages"
        ) from error
    folder = Path(bpf.__path__[0])
    # One text, because BCC takes programs from no included file.
    sources = (f'#line 1 "{name}"\n{(folder / name).read_text()}' for name in ("steer.c", "overflow.c"))
    text = c_enum() + c_definitions(maps) + "".join(sources)
    flags = [f"-I{folder}", *(f"-D{name}={value}" for name, value in constants.items())]
    with _stderr_kept() as kept:
        module = None
        try:
            module = BPF(text=text.encode(), cflags=flags)
            # The program names maps by descriptor until it is loaded. BCC's own way to a map that is there, by its id,
            # is for CAP_SYS_ADMIN.
            for name, fd in there.items():
                os.dup2(fd, module[name.encode()].map_fd, inheritable=False)
            steer = module.load_func(b"firsthop_steer", BPF.XDP)
            overflow = module.load_func(b"firsthop_overflow", BPF.RAW_TRACEPOINT)
            programs = {"steer": os.dup(steer.fd), "overflow": os.dup(overflow.fd)}
            return programs, {name: os.dup(module[name.encode()].map_fd) for name in maps}
        except Exception as error:
            said = kept()
            line = next(
                (line for line in said.splitlines() if "error:" in line), (str(error) or repr(error)).splitlines()[0]
            )
            failure = SteeringUnavailable(f"no XDP steering: the kernel program does not load: {line.strip()}")
            failure.add_note(said)
            raise failure from error
        finally:
            if module is not None:
                module.cleanup()


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
