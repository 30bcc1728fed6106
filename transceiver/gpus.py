"""The GPUs of this host, by NVIDIA's management library (NVML), for the transceiver's reports.

The driver may take its time, so a thread of its own asks it. A host without NVIDIA's driver has no such thread after
the first look, and no GPUs.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

from runtime import logs
from runtime.process import step_back
from wire.report import Gpu

__all__ = ["Gpus"]

_EVERY_S = 5.0
_MOST = 64  # of a report
_MIB = 1 << 20


class Gpus:
    """The GPUs as the last look found them, in ``now``. ``nvml`` is the module ``pynvml`` unless a test has another."""

    def __init__(self, nvml: Any = None, every_s: float = _EVERY_S) -> None:
        self.now: tuple[Gpu, ...] = ()
        self._nvml = nvml
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpus", daemon=True)

    def start(self) -> None:
        """Begins to look, every few seconds."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether somebody still looks."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Looks no more."""
        self._stop.set()

    def _run(self) -> None:
        step_back()
        try:
            nvml = self._nvml or import_module("pynvml")  # here, because few hosts need it
            nvml.nvmlInit()
        except Exception as e:  # the library's own errors have no base but Exception
            logs.get().debug("no GPU is reported", why=repr(e))
            return
        while True:
            try:
                self.now = tuple(_look(nvml, i) for i in range(min(nvml.nvmlDeviceGetCount(), _MOST)))
            except Exception as e:
                self.now = ()  # what is not known is not told; the driver may be back at the next look
                logs.get().debug("the GPUs could not be read", why=repr(e))
            if self._stop.wait(self._every_s):
                return


def _look(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        used, total = memory.used // _MIB, memory.total // _MIB
    except Exception:  # a GPU whose memory is the host's has none of its own to tell of
        used = total = 0
    try:
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except Exception:  # one that is divided into instances (MIG) tells it of none
        busy = 0.0
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    return Gpu(text[:256], used, total, min(1.0, max(0.0, busy)))
