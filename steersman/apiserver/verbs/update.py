"""update: replace a whole object, or one of its subresources that is the object itself."""

from __future__ import annotations

from steersman.api.resource import Object
from steersman.apiserver.call import Call
from steersman.apiserver.verbs.create import answer
from steersman.apiserver.verbs.write import (
    body_of,
    create_object,
    options,
    settle_name,
    settle_namespace,
    update_object,
)
from steersman.lib.http.messages import Response


async def update(call: Call) -> Response:
    """200 with the object as stored; 201 where a missing one is created."""
    options(call)
    obj = body_of(call)
    settle_namespace(call, obj)
    settle_name(call, obj)
    item = call.storage.find(call.kind, call.info.namespace, call.info.name)
    if item is None and call.kind.create_on_update and not call.info.subresource:
        return answer(call, 201, await create_object(call, obj))
    item = call.storage.get(call.kind, call.info.namespace, call.info.name)
    versioned = str(obj["metadata"].get("resourceVersion") or "") not in ("", "0")

    def change(_: Object) -> Object:
        fresh: Object = {**obj, "metadata": dict(obj["metadata"])}
        return fresh

    return answer(call, 200, await update_object(call, item, change, retry=not versioned))
