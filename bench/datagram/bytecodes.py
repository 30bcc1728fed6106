"""A count of the bytecodes that Python runs, by function: what a frame costs, whatever else the machine does."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from bench.harness.document import ROOT

__all__ = ["Bytecodes"]

_OURS = str(Path(__file__).parent)


class Bytecodes:
    """Counts, as ``sys.settrace`` tells of them, between ``enable`` and ``disable``: ``run`` has the bytecodes of each
    function and ``calls`` how often it was called. The benchmark's own functions are left out."""

    def __init__(self) -> None:
        self.run: Counter[CodeType] = Counter()
        self.calls: Counter[CodeType] = Counter()

    def enable(self) -> None:
        """Begins, with functions that are called from now on."""
        sys.settrace(self._called)

    def disable(self) -> None:
        """Ends."""
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        if code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.calls[code] += 1
        return self._ran

    def _ran(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            self.run[frame.f_code] += 1
        return self._ran

    def table(self, frames: int, most: int) -> str:
        """The ``most`` functions that run the most, for each of so many frames, and the sum of all."""
        rows = [
            f"{count / frames:8.1f} {self.calls[code] / frames:6.2f}  {_name(code)}"
            for code, count in self.run.most_common(most)
        ]
        total = f"{self.run.total() / frames:8.1f} {self.calls.total() / frames:6.2f}  all"
        return "\n".join(["bytecodes, calls and place of a function", *rows, total])


def _name(code: CodeType) -> str:
    place = code.co_filename.removeprefix(f"{ROOT}/").rpartition("site-packages/")[2]
    return f"{place}:{code.co_firstlineno} {code.co_qualname}"
