"""How many volumes and claims there are, bound and not, for metrics.

Owns the gauges pv_collector_*. They are counted when somebody asks. Called by the binder's feed.
Source: kubernetes' pkg/controller/volume/persistentvolume/metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, Object
from steersman.client.controller import Context
from steersman.client.volumematch import class_of

_PLUGINS = {"hostPath": "host-path", "nfs": "nfs", "fc": "fc", "iscsi": "iscsi"}


def plugin_of(volume: Object) -> str:
    """The volume plugin's name; a driver's is told with it."""
    spec = volume["spec"]
    if csi := spec.get("csi"):
        return f"kubernetes.io/csi:{csi['driver']}"
    return next((f"kubernetes.io/{name}" for source, name in _PLUGINS.items() if spec.get(source)), "N/A")


def collect(context: Context) -> None:
    """Set all gauges."""
    volumes, claims = (context.informer(each).list() for each in (PERSISTENTVOLUMES, PERSISTENTVOLUMECLAIMS))
    total = Counter((plugin_of(each), str(each["spec"].get("volumeMode") or "Filesystem")) for each in volumes)
    _set(context, "total_pv_count", "Volumes.", ("plugin_name", "volume_mode"), total)
    for bound in (True, False):
        word = "bound" if bound else "unbound"
        chosen = Counter((str(each["spec"].get("storageClassName") or ""),) for each in volumes if _is(each, bound))
        _set(context, f"{word}_pv_count", f"Volumes that are {word}.", ("storage_class",), chosen)
        names = ("namespace", "storage_class", "volume_attributes_class")
        asked = Counter(_claim(each) for each in claims if _is(each, bound))
        _set(context, f"{word}_pvc_count", f"Claims that are {word}.", names, asked)


def _is(obj: Object, bound: bool) -> bool:
    return ((obj.get("status") or {}).get("phase") == "Bound") == bound


def _claim(claim: Object) -> tuple[str, ...]:
    attributes = str(claim["spec"].get("volumeAttributesClassName") or "")
    return claim["metadata"]["namespace"], class_of(claim), attributes


def _set(
    context: Context,
    name: str,
    text: str,
    labels: tuple[str, ...],
    counts: Mapping[Any, int],
) -> None:
    family = context.metrics.gauge(f"pv_collector_{name}", text, labels)
    family.clear()
    for values, count in counts.items():
        family.labels(*values).set(count)
