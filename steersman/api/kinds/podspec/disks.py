"""Rules of the volume types that name a disk or a share of some storage system.

Owns what is asked of each such source, in a pod and in a PersistentVolume, which names its secrets by namespace too.
Called by `volumes` and by persistent volumes. Most of these types work through CSI drivers or no longer at all; what
may be written into them did not change. Source: the validate...VolumeSource functions in pkg/apis/core/validation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.validation import invalid, not_supported, required

Complaints = list[FieldError]
Source = Mapping[str, Any]
Check = Callable[[str, Source], Complaints]

_CACHING = ("None", "ReadOnly", "ReadWrite")
_AZURE_KINDS = ("Dedicated", "Managed", "Shared")
_MANAGED = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
_BLOB = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
_INITIATORS = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([0-9A-Za-z.-]+)(:[^,;*&$|\s]+)$", re.ASCII),
    "eui": re.compile(r"^eui.[0-9A-Za-z]{16}$", re.ASCII),
    "naa": re.compile(r"^naa.[0-9A-Za-z]{32}$", re.ASCII),
}
_BYTE = "must be between 0 and 255, inclusive"
_PAIR = "must be a host:port pair or multiple pairs separated by commas"


def needs(*fields: str) -> Check:
    """Fields that may not be empty."""
    return lambda path, found: [required(f"{path}.{field}") for field in fields if not found.get(field)]


def _partition(*fields: str) -> Check:
    def check(path: str, found: Source) -> Complaints:
        at = found.get("partition") or 0
        out = needs(*fields)(path, found)
        text = "must be between 1 and 255, inclusive"
        return out if 0 <= at <= 255 else [*out, invalid(f"{path}.partition", at, text)]

    return check


def _glusterfs(path: str, found: Source) -> Complaints:
    out = needs("endpoints", "path")(path, found)
    where, here = found.get("endpointsNamespace"), f"{path}.endpointsNamespace"
    if where == "":
        return [*out, invalid(here, where, "if the endpointnamespace is set, it must be a valid namespace name")]
    return out + [invalid(here, where, text) for text in (names.dns_label(where) if where else ())]


def _flocker(path: str, found: Source) -> Complaints:
    name, uid = found.get("datasetName") or "", found.get("datasetUUID") or ""
    out: Complaints = []
    if not name and not uid:
        out.append(required(path, "one of datasetName and datasetUUID is required"))
    if name and uid:
        out.append(invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously"))
    if "/" in name:
        out.append(invalid(f"{path}.datasetName", name, "must not contain '/'"))
    return out


def _quobyte(path: str, found: Source) -> Complaints:
    registry = found.get("registry") or ""
    out: Complaints = []
    if not registry:
        out.append(required(f"{path}.registry", _PAIR))
    elif len(found.get("tenant") or "") >= 65:
        text = "must be a UUID and may not exceed a length of 64 characters"
        out.append(required(f"{path}.tenant", text))
    else:
        out += [
            invalid(f"{path}.registry", registry, _PAIR)
            for pair in registry.split(",")
            if not re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*):[^:\[\]]*", pair)
        ]
    return out + needs("volume")(path, found)


def _initiator(path: str, name: str, *, of_pod: bool) -> Complaints:
    form = _INITIATORS.get(name[:3])
    if form is None:
        return [invalid(path, name, f"must be valid format{_START if of_pod else ''}")]
    return [] if form.search(name) else [invalid(path, name, "must be valid format")]


_START = " starting with iqn, eui, or naa"


def _iscsi_of_volume(path: str, found: Source) -> Complaints:
    return _iscsi(path, found, of_pod=False)


def _iscsi(path: str, found: Source, *, of_pod: bool = True) -> Complaints:
    out = needs("targetPortal", "iqn")(path, found)
    if found.get("iqn"):
        out += _initiator(f"{path}.iqn", found["iqn"], of_pod=of_pod)
    lun = found.get("lun") or 0
    if not 0 <= lun <= 255:
        out.append(invalid(f"{path}.lun", lun, _BYTE))
    if (found.get("chapAuthDiscovery") or found.get("chapAuthSession")) and "secretRef" not in found:
        out.append(required(f"{path}.secretRef"))
    if "initiatorName" in found:
        out += _initiator(f"{path}.initiatorname", found["initiatorName"], of_pod=of_pod)
    return out


def _secret(check: Check, *fields: str) -> Check:
    """`check`, and a secretRef that has these fields, where there is one."""

    def both(path: str, found: Source) -> Complaints:
        out = check(path, found)
        return out + needs(*fields)(f"{path}.secretRef", found["secretRef"]) if "secretRef" in found else out

    return both


def _fibre_channel(path: str, found: Source) -> Complaints:
    targets, wwids, lun = found.get("targetWWNs") or [], found.get("wwids") or [], found.get("lun")
    here = f"{path}.targetWWNs"
    out: Complaints = []
    if not targets and not wwids:
        out.append(required(here, "must specify either targetWWNs or wwids, but not both"))
    if targets and wwids:
        out.append(invalid(here, targets, "targetWWNs and wwids can not be specified simultaneously"))
    if targets and lun is None:
        out.append(required(f"{path}.lun", "lun is required if targetWWNs is specified"))
    elif targets and lun is not None and not 0 <= lun <= 255:
        out.append(invalid(f"{path}.lun", lun, _BYTE))
    return out


def _flex(path: str, found: Source) -> Complaints:
    out = needs("driver")(path, found)
    for key in found.get("options") or ():
        if f".{key.partition('/')[0].lower()}".endswith((".kubernetes.io", ".k8s.io")):
            text = "kubernetes.io and k8s.io namespaces are reserved"
            out.append(invalid(f"{path}.options[{key}]", key, text))
    return out


def _azure_disk(path: str, found: Source) -> Complaints:
    out = needs("diskName", "diskURI")(path, found)
    uri, caching, kind = found.get("diskURI") or "", found.get("cachingMode"), found.get("kind")
    if caching is not None and caching not in _CACHING:
        out.append(not_supported(f"{path}.cachingMode", caching, _CACHING))
    if kind is not None and kind not in _AZURE_KINDS:
        out.append(not_supported(f"{path}.kind", kind, _AZURE_KINDS))
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        out.append(not_supported(f"{path}.diskURI", uri, [_MANAGED]))
    if kind not in (None, "Managed") and not uri.startswith("https://"):
        out.append(not_supported(f"{path}.diskURI", uri, [_BLOB]))
    return out


def _azure_file(path: str, found: Source) -> Complaints:
    out = needs("secretName", "shareName")(path, found)
    return [*out, required(f"{path}.secretNamespace")] if found.get("secretNamespace") == "" else out


def _storage_os(path: str, found: Source) -> Complaints:
    name, space = found.get("volumeName") or "", found.get("volumeNamespace") or ""
    out = [] if name else [required(f"{path}.volumeName")]
    if name:
        out += [invalid(f"{path}.volumeName", name, text) for text in names.dns_label(name)]
    if space:
        out += [invalid(f"{path}.volumeNamespace", space, text) for text in names.dns_label(space)]
    return out


def secret_reference(path: str, found: Source) -> Complaints:
    """A SecretReference, which names a namespace and is needed in full."""
    out: Complaints = []
    for key, rule in (("name", names.dns_subdomain), ("namespace", names.dns_label)):
        value = found.get(key) or ""
        texts = rule(value) if value else ()
        out += [invalid(f"{path}.{key}", value, text) for text in texts] if value else [required(f"{path}.{key}")]
    return out


def _sources(*secret: str) -> dict[str, Check]:
    return {
        "gcePersistentDisk": _partition("pdName"),
        "awsElasticBlockStore": _partition("volumeID"),
        "glusterfs": _glusterfs,
        "flocker": _flocker,
        "rbd": needs("monitors", "image"),
        "quobyte": _quobyte,
        "cephfs": needs("monitors"),
        "iscsi": _iscsi,
        "cinder": _secret(needs("volumeID"), *secret),
        "fc": _fibre_channel,
        "flexVolume": _flex,
        "azureFile": _azure_file,
        "vsphereVolume": needs("volumePath"),
        "photonPersistentDisk": needs("pdID"),
        "portworxVolume": needs("volumeID"),
        "azureDisk": _azure_disk,
        "scaleIO": needs("gateway", "system", "volumeName"),
        "storageos": _secret(_storage_os, *secret),
    }


OF_PODS: Mapping[str, Check] = _sources("name")
OF_VOLUMES: Mapping[str, Check] = {**_sources("name", "namespace"), "iscsi": _secret(_iscsi_of_volume, "name")}
_SHOWN = {"gcePersistentDisk": "persistentDisk"}
_SPELT = {"cephfs": "cephFS", "downwardAPI": "downwarAPI"}


def place(path: str, key: str) -> str:
    """Where complaints about a source of this type are."""
    return f"{path}.{_SHOWN.get(key, key)}"


def crowd(path: str, keys: Sequence[str]) -> list[str]:
    """Where complaints about sources beside the first are."""
    return [f"{path}.{_SPELT.get(key, key)}" for key in keys]
