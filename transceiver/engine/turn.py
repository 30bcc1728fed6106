"""The end of a turn as it sounds: Smart Turn v3.2, a model of 8 million parameters, by ONNX Runtime.

Features as ``pipecat.audio.turn.smart_turn`` makes them, whose package brings the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from transceiver.engine.sound import RATE_HZ, Samples, log_mel

__all__ = ["Turn"]

_HEARD = 8 * RATE_HZ


class Turn:
    """The model, loaded from the file ``model``. One thread may use it at a time."""

    def __init__(self, model: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def ended(self, sound: Samples) -> float:
        """The probability, 0 to 1, that who spoke has finished; the last 8 s count."""
        sound = sound[-_HEARD:]
        sound = np.pad(sound, (_HEARD - len(sound), 0))
        sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
        (found, *_) = self._session.run(None, {"input_features": log_mel(sound)[None]})
        return min(1.0, max(0.0, float(np.ravel(found)[0])))
