"""StepCost: how long a step takes, learned from the engine's own steps.

Seconds are linear in the tokens that a step computes and in the context that its rows read: the products
with the weights cost by token, attention by token of context, and something costs each step. The three
coefficients are fitted by least squares, none below zero, over sums kept apart by the size of steps: a
thousand decode steps in a row do not make it forget what the last long chunk cost.
"""

from __future__ import annotations

from collections.abc import Sequence

Vector = tuple[float, float, float]
"""(1, tokens, context), in the units below."""

TOKEN_UNIT, CONTEXT_UNIT = 1e3, 1e5
"""Of a size that keeps the sums alike."""
NUM_SIZES = 20
"""Steps of 1, 2 to 3, 4 to 7, ... tokens."""
MEMORY = 0.95
"""What earlier steps of a size still count when a new one comes: about the last twenty do."""
RIDGE = 1e-6


class StepCost:
    """Pure: told what steps took, asked how many tokens fit."""

    def __init__(self) -> None:
        self._products = [[0.0] * 9 for _ in range(NUM_SIZES)]
        """By size: sums of x times x, row by row."""
        self._targets = [[0.0] * 3 for _ in range(NUM_SIZES)]
        """By size: sums of x times seconds."""
        self.most_seen = 0
        """Tokens of the largest step so far."""
        self._weights: Vector | None = None

    def learn(self, num_tokens: int, num_context: int, seconds: float) -> None:
        """A step of so many tokens, over so much context, took this long."""
        size = min(num_tokens.bit_length(), NUM_SIZES) - 1
        x = (1.0, num_tokens / TOKEN_UNIT, num_context / CONTEXT_UNIT)
        products, targets = self._products[size], self._targets[size]
        for row in range(3):
            targets[row] = MEMORY * targets[row] + x[row] * seconds
            for column in range(3):
                place = 3 * row + column
                products[place] = MEMORY * products[place] + x[row] * x[column]
        self.most_seen = max(self.most_seen, num_tokens)
        self._weights = None

    def seconds(self, num_tokens: int, num_context: int) -> float:
        """What such a step should take."""
        fixed, per_token, per_context = self._fitted()
        return fixed + per_token * num_tokens / TOKEN_UNIT + per_context * num_context / CONTEXT_UNIT

    def tokens_within(self, seconds: float, num_context: int) -> float:
        """How many tokens fit; infinite while tokens seem to cost nothing, below zero if none does."""
        fixed, per_token, per_context = self._fitted()
        left = seconds - fixed - per_context * num_context / CONTEXT_UNIT
        return left / per_token * TOKEN_UNIT if per_token > 0 else float("inf") * (1 if left > 0 else -1)

    def _fitted(self) -> Vector:
        if self._weights is None:
            products = [sum(size[place] for size in self._products) for place in range(9)]
            targets = [sum(size[row] for size in self._targets) for row in range(3)]
            self._weights = _least_squares(products, targets)
        return self._weights


def _least_squares(products: Sequence[float], targets: Sequence[float]) -> Vector:
    """Solve for the coefficients; what comes out below zero is left out and the rest is solved again."""
    used = [0, 1, 2]
    while used:
        found = _solve(
            [[products[3 * r + c] + RIDGE * (r == c) for c in used] for r in used], [targets[r] for r in used]
        )
        lowest = min(range(len(used)), key=found.__getitem__)
        if found[lowest] >= 0.0:
            values = dict(zip(used, found, strict=True))
            return values.get(0, 0.0), values.get(1, 0.0), values.get(2, 0.0)
        del used[lowest]
    return 0.0, 0.0, 0.0


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gaussian elimination of a small positive definite matrix, which needs no exchange of rows."""
    size = len(right)
    for pivot in range(size):
        for row in range(pivot + 1, size):
            factor = matrix[row][pivot] / matrix[pivot][pivot]
            right[row] -= factor * right[pivot]
            for column in range(pivot, size):
                matrix[row][column] -= factor * matrix[pivot][column]
    found = [0.0] * size
    for row in reversed(range(size)):
        known = sum(matrix[row][column] * found[column] for column in range(row + 1, size))
        found[row] = (right[row] - known) / matrix[row][row]
    return found
