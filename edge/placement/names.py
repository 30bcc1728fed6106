"""Numbers for names that many share, so that columns of names can be compared as arrays."""

from __future__ import annotations

__all__ = ["Names"]


class Names:
    """The number of each name that somebody holds; 0 is the empty name's. A name that nobody holds any more gives its
    number back, so there are never more of them than holders."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}
        self._names: list[str] = [""]
        self._holders: list[int] = [1]
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def hold(self, name: str) -> int:
        """The number of ``name``, which stays its own until as many ``release`` it."""
        number = self._numbers.get(name)
        if number is None:
            if not self._free:
                self._free.append(len(self._names))
                self._names.append("")
                self._holders.append(0)
            number = self._numbers[name] = self._free.pop()
            self._names[number] = name
        self._holders[number] += 1
        return number

    def release(self, number: int) -> None:
        """Takes one ``hold`` back."""
        self._holders[number] -= 1
        if not self._holders[number]:
            del self._numbers[self._names[number]]
            self._free.append(number)

    def find(self, name: str) -> int | None:
        """The number of ``name``, or None where nobody holds it."""
        return self._numbers.get(name)

    def __getitem__(self, number: int) -> str:
        return self._names[number]
