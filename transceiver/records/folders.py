"""The folders that the configuration names for records, as a supervisor looks at them: it writes none itself."""

from __future__ import annotations

from runtime.config import Transceiver
from runtime.errors import ConfigError, folder_trouble

__all__ = ["check"]


def check(config: Transceiver) -> None:
    """Checks that files can be made in the configured folders; a folder that is missing is made. Raises ConfigError."""
    for key, folder in (("transcripts", config.transcripts), ("recordings", config.recordings)):
        if folder is not None and (trouble := folder_trouble(folder)):
            raise ConfigError(f"transceiver.{key} {folder}: no files can be made there: {trouble}")
