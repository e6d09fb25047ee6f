"""Every namespace has the ConfigMap `kube-root-ca.crt`, with which pods trust the API server.

Owns that ConfigMap. The certificate comes from the setting `root-ca` (PEM); without it nothing is published.
Source: kubernetes' pkg/controller/certificates/rootcacertpublisher.
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, NAMESPACES, Object
from steersman.client.children import namespace_terminates
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch
from steersman.client.metrics import exponential

_NAME = "kube-root-ca.crt"
_FIELDS = f"metadata.name={_NAME}"
_AGAIN = 10.0  # seconds: what we made may go before we see it, and then nothing tells
_DESCRIPTION = "kubernetes.io/description"
_TEXT = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


async def reconcile(context: Context, key: Key) -> Result:
    """Create the ConfigMap, or put right what somebody changed."""
    authority = context.config.get("root-ca", "")
    namespace = context.informer(NAMESPACES).get(*key)
    if not authority or namespace is None or namespace["metadata"].get("deletionTimestamp"):
        return DONE
    wanted = {"ca.crt": authority}
    found = context.informers.informer(CONFIGMAPS, fields=_FIELDS).get(key.name, _NAME)
    began, code = context.clock.monotonic(), "200"
    try:
        if found is None:
            meta = {"name": _NAME, "annotations": {_DESCRIPTION: _TEXT}}
            await context.client.create(CONFIGMAPS, {"metadata": meta, "data": wanted}, key.name)
            return Result(_AGAIN)
        elif found.get("data") != wanted or (found["metadata"].get("annotations") or {}).get(_DESCRIPTION) != _TEXT:
            annotations = {**(found["metadata"].get("annotations") or {}), _DESCRIPTION: _TEXT}
            changed = {**found, "metadata": {**found["metadata"], "annotations": annotations}, "data": wanted}
            await context.client.update(CONFIGMAPS, changed)
    except ApiError as error:
        code = str(error.code)
        if error.reason != "AlreadyExists" and error.code != 404 and not namespace_terminates(error):
            raise
        if error.reason == "AlreadyExists":
            return Result(_AGAIN)
    finally:
        name, metrics = "root_ca_cert_publisher_sync", context.metrics
        metrics.counter(f"{name}_total", "Looks at namespaces.", ("code",)).labels(code).inc()
        family = metrics.histogram(f"{name}_duration_seconds", "Their seconds.", ("code",), exponential(0.001, 2, 15))
        family.labels(code).observe(context.clock.monotonic() - began)
    return DONE


def _of_configmap(_: Context, obj: Object) -> Iterable[Key]:
    if obj["metadata"]["name"] == _NAME:
        yield Key("", obj["metadata"]["namespace"])


CONTROLLER = Controller(
    "root-ca-certificate-publisher-controller",
    reconcile,
    (For(NAMESPACES), Watch(CONFIGMAPS, _of_configmap, fields=_FIELDS)),
    workers=1,
)
