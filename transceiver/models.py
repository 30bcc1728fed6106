"""The models that a process serves: agents by name, each in one version, which callers may ask for."""

from __future__ import annotations

from collections.abc import Mapping

from runtime import logs
from transceiver import agents
from transceiver.refusing import RequestError
from wire.report import name_and_version

__all__ = ["Models"]


class Models:
    """The models. ``default`` is that of a call which names none; ``told`` has the versions of those whose package does
    not say theirs, by name."""

    def __init__(self, default: str, told: Mapping[str, str]) -> None:
        self._default, self._told = default, told

    @property
    def versions(self) -> dict[str, str]:
        """The names of all that can be loaded, each with its version ("" where it is not known)."""
        return {name: self._told.get(name, packaged) for name, packaged in agents.versions().items()}

    def find(self, asked: str) -> tuple[str, type[agents.Base]]:
        """The name and the agent of the model that is asked for as ``name``, ``name@version`` or "" for the default.
        Raises RequestError."""
        name, version = name_and_version(asked or self._default)
        try:
            found = agents.find(name)
        except (ImportError, TypeError) as e:  # of another package
            logs.get().error("an agent cannot be loaded", agent=name, why=str(e))
            raise RequestError(f"agent {name!r} cannot be loaded: its reason is in the log", "full") from None
        if found is None:
            why = f"no agent called {name!r}: there is {', '.join(agents.names())}"
            raise RequestError(why, "model_not_found", "model")
        if version and version != (here := self.versions.get(name, "")):
            there = f"{name}@{here}" if here else "one without a version"
            raise RequestError(f"no version {version!r} of {name!r}: there is {there}", "model_not_found", "model")
        return name, found
