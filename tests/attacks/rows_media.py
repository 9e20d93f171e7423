"""Rows 2.5: media and remote fetch. Octavo takes no media yet, and fetches nothing for a request."""

from __future__ import annotations

from tests.attacks.row import NotThere

_REASON = "no media yet (issue 9)"

NOT_THERE = (
    NotThere(id="M01", name="addresses that may not be fetched", reason=_REASON),
    NotThere(id="M03", name="URLs that parsers read differently", reason=_REASON),
    NotThere(id="M04", name="other schemes, files out of the media folder", reason=_REASON),
    NotThere(id="M05", name="servers that drip, lie, never end", reason=_REASON),
    NotThere(id="M06", name="pictures that are too large, odd or broken", reason=_REASON),
    NotThere(id="M08", name="data URLs", reason=_REASON),
    NotThere(id="M09", name="sound that grows when it is decoded", reason=_REASON),
    NotThere(id="M10", name="equal pixels in other shapes, of other tenants", reason=_REASON),
)
