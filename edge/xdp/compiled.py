"""Compiled BPF programs, apart from the maps that they use, and the folder that keeps them.

Compiling takes a core for a second and BCC 100 MB, and it comes to the same every time: a supervisor that is started
again takes what its predecessor compiled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["Compiled", "Kept"]

# Of linux/bpf.h: an instruction loads a constant of 64 bits, and its source register says that it names a map.
_INSTRUCTION_BYTES = 8
_LOAD_CONSTANT, _MAP_BY_DESCRIPTOR = 0x18, 1
_MOST_FILES = 8
_OTHERS_CAN_WRITE = 0o022


@dataclass(frozen=True, slots=True)
class Compiled:
    """The instructions of a program, and the names of the maps that some of them use, by number of instruction."""

    instructions: bytes
    maps: Mapping[int, str]

    @classmethod
    def unlinked(cls, instructions: bytes, names: Mapping[int, str]) -> Self:
        """The program out of instructions that name maps by descriptor; ``names`` are the maps' names by descriptor.
        Raises KeyError for a map that has none."""
        code, maps = bytearray(instructions), {}
        at = 0
        while at < len(code):
            constant = code[at] == _LOAD_CONSTANT
            if constant and code[at + 1] >> 4 == _MAP_BY_DESCRIPTOR:
                maps[at // _INSTRUCTION_BYTES] = names[int.from_bytes(code[at + 4 : at + 8], "little")]
                code[at + 4 : at + 8] = bytes(4)
            at += 2 * _INSTRUCTION_BYTES if constant else _INSTRUCTION_BYTES
        return cls(bytes(code), maps)

    def linked(self, descriptors: Mapping[str, int]) -> bytes:
        """The instructions that use the maps behind these descriptors, by name."""
        code = bytearray(self.instructions)
        for number, name in self.maps.items():
            at = number * _INSTRUCTION_BYTES + 4
            code[at : at + 4] = descriptors[name].to_bytes(4, "little")
        return bytes(code)


class Kept:
    """The folder that keeps compiled programs, each set under the hash of what it was made from.

    Who could write there could have the kernel run another program: files that are not this user's or root's, or that
    others can write, do not count. Neither do broken ones. What cannot be kept is compiled again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, source: str) -> dict[str, Compiled] | None:
        """The programs that were made from ``source``, by name."""
        try:
            with open(os.open(self._path(source), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                about = os.fstat(file.fileno())
                if about.st_uid not in (0, os.geteuid()) or about.st_mode & _OTHERS_CAN_WRITE:
                    return None
                digest, _, text = file.read().partition(b"\n")
        except OSError:
            return None
        if digest.decode(errors="replace") != hashlib.sha256(text).hexdigest():
            return None
        return {
            name: Compiled(b64decode(code), {int(number): used for number, used in maps.items()})
            for name, (code, maps) in json.loads(text).items()
        }

    def put(self, source: str, programs: Mapping[str, Compiled]) -> None:
        """Keeps these, in place of the oldest where there are many."""
        made = {name: (b64encode(each.instructions).decode(), dict(each.maps)) for name, each in programs.items()}
        text = json.dumps(made).encode()
        path = self._path(source)
        half_written = path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            half_written.unlink(missing_ok=True)
            with open(os.open(half_written, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
            half_written.rename(path)
            kept = sorted(self._folder.glob("steer-*.bpf"), key=lambda each: each.stat().st_mtime)
            for old in kept[:-_MOST_FILES]:
                old.unlink(missing_ok=True)

    def _path(self, source: str) -> Path:
        return self._folder / f"steer-{hashlib.sha256(source.encode()).hexdigest()[:16]}.bpf"
