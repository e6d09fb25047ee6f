"""Subresources with objects of their own kind: a Scale, an Eviction, a Binding, a TokenRequest.

Owns what admission is shown of them: that object, not the resource that it is about. Called by those subresources
before they change the resource, which nobody is asked about again. Source: apiserver's endpoints/handlers, and the
ScaleREST of pkg/registry/apps.
"""

from __future__ import annotations

from dataclasses import replace

from steersman.api.resource import Object
from steersman.apiserver.call import Call


async def admitted(call: Call, operation: str, obj: Object, old: Object | None = None) -> Call:
    """Ask about a subresource's own object, which mutation may change. Raises ApiError.

    Returns the call by which the resource itself is then written.
    """
    asked = replace(call, operation=operation, apart=True)
    await call.services.admission.mutate(asked, obj, old)
    await call.services.admission.validate(asked, obj, old)
    return replace(call, settled=True)


async def connecting(call: Call) -> None:
    """Ask about somebody who connects, before anybody looks whom to. Raises ApiError."""
    call.operation = "CONNECT"
    await call.services.admission.mutate(call, None, None)
    await call.services.admission.validate(call, None, None)
