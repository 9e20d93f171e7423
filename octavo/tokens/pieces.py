"""What each token adds to a text, found out when it is first met: text if it is whole characters, else bytes.

Most tokens are whole characters, and putting text together is all that is left to do with them.
"""

from __future__ import annotations

from collections.abc import Callable


class Pieces(dict[int, str | bytes]):
    """By token id. `hides`: tokens that add nothing, whatever their bytes are."""

    def __init__(self, token_bytes: Callable[[int], bytes], hides: Callable[[int], bool] | None) -> None:
        super().__init__()
        self._token_bytes = token_bytes
        self._hides = hides

    def __missing__(self, token_id: int) -> str | bytes:
        piece = self[token_id] = self._piece(token_id)
        return piece

    def _piece(self, token_id: int) -> str | bytes:
        if self._hides is not None and self._hides(token_id):
            return ""
        data = self._token_bytes(token_id)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data
