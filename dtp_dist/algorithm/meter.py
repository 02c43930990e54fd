"""Means of named values, gathered without a random or a global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Meter:
    """Weighted means by name; NaN-free as long as the values are."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}

    def add(self, name: str, value: float, weight: float = 1.0) -> None:
        """Count ``value`` in the mean of ``name`` with ``weight`` (examples, minibatches)."""
        self._sums[name] = self._sums.get(name, 0.0) + value * weight
        self._weights[name] = self._weights.get(name, 0.0) + weight

    def add_all(self, values: Mapping[str, float], weight: float = 1.0) -> None:
        """Count every value of a mapping."""
        for name, value in values.items():
            self.add(name, value, weight)

    def merge(self, other: Meter) -> None:
        """Count everything that another meter has counted."""
        for name, weight in other._weights.items():
            self.add(name, other._sums[name] / weight if weight else 0.0, weight)

    def means(self) -> dict[str, float]:
        """Return the mean of every name that has been counted."""
        return {name: self._sums[name] / weight for name, weight in self._weights.items() if weight}

    def weight(self, name: str) -> float:
        """Return the total weight counted under ``name``."""
        return self._weights.get(name, 0.0)

    def state(self) -> dict[str, tuple[float, float]]:
        """Return what was counted as plain data: name -> (sum, weight)."""
        return {name: (self._sums[name], weight) for name, weight in self._weights.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Sequence[float]]) -> Meter:
        """Return the meter that ``state`` came from."""
        meter = cls()
        for name, (total, weight) in state.items():
            meter._sums[name], meter._weights[name] = total, weight
        return meter

    def take(self) -> Meter:
        """Return a meter with what was counted so far and begin again at zero."""
        taken = Meter()
        taken._sums, taken._weights = self._sums, self._weights
        self._sums, self._weights = {}, {}
        return taken
