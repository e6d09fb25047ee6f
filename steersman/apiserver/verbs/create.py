"""create."""

from __future__ import annotations

from steersman.api import errors
from steersman.apiserver.cache import Item
from steersman.apiserver.call import Call
from steersman.apiserver.verbs.write import body_of, create_object, options
from steersman.lib.http.messages import Response


async def create(call: Call) -> Response:
    """A new object: 201 with it as stored."""
    options(call)
    if call.kind.namespaced and not call.info.namespace:
        raise errors.bad_request("an empty namespace may not be set during creation")
    return answer(call, 201, await create_object(call, body_of(call)))


def answer(call: Call, status: int, made: Item | dict[str, object]) -> Response:
    """The object as stored, or as it would be."""
    call.written = status, made
    if isinstance(made, Item):
        return call.respond(status, call.encoder().object(made))
    from steersman.apiserver.encode import headed, in_medium

    return call.respond(status, in_medium(headed(call.encoder().convert(made)), call.format))
