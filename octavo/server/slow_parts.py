"""What of a request takes long: found out beside the event loop, before the request is submitted."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from octavo.base.errors import RequestError
from octavo.server.render.form import renamed
from octavo.server.render.rendered import Rendered
from octavo.server.serving import Serving


async def with_slow_parts(serving: Serving, rendered: Rendered) -> Rendered:
    """The same with its grammar compiled, by a helper process, and its words made ready, by a thread.

    Raises RequestError, where it is about the form naming the place.
    """
    await serving.engine.make_ready(rendered.params)
    form = rendered.params.structured_outputs
    if form is None:
        return rendered
    try:
        checked = await serving.engine.grammars.check(form)
    except RequestError as error:
        raise renamed(error, rendered.form_origins) from None
    params = msgspec.structs.replace(rendered.params, structured_outputs=checked)
    return replace(rendered, params=params)
