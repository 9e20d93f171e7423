"""ForecastError: by how much predictions fall short, as far as 99 of 100 of them go."""

from __future__ import annotations

import math

MEMORY = 50
"""So many of the last errors count for most."""
DEVIATIONS = 2.33
"""99 % of a normal distribution lie below its mean and so many standard deviations."""


class ForecastError:
    """Mean and variance of errors, each new one counting 1/MEMORY (exponentially weighted; West 1979)."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._variance = 0.0

    def add(self, error: float) -> None:
        """What came, less what was predicted."""
        change = error - self._mean
        self._mean += change / MEMORY
        self._variance = (1 - 1 / MEMORY) * (self._variance + change * change / MEMORY)

    @property
    def margin(self) -> float:
        """What to add to a prediction that should nearly always be enough; never below 0."""
        return max(0.0, self._mean + DEVIATIONS * math.sqrt(self._variance))
