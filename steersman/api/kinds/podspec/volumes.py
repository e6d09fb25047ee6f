"""Rules of volumes and of how containers mount them.

Owns `volumes`, `mounts` and `devices`. Volume types that only in-tree drivers of clouds used are checked for being
the only one. Source: ValidateVolumes, validateVolumeSource, ValidateVolumeMounts in pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steersman.api import meta, names, quantity
from steersman.api.errors import FieldError
from steersman.api.kinds.podspec import disks, env
from steersman.api.kinds.podspec.paths import descending, no_backsteps, not_reserved
from steersman.api.labels import validate_labels
from steersman.api.protobuf.table import table
from steersman.api.validation import duplicate, forbidden, invalid, not_found, not_supported, required, too_long

Complaints = list[FieldError]
Volumes = Mapping[str, Mapping[str, Any]]

MODE = "must be a number between 0 and 0777 (octal), both inclusive"
_HOST_PATHS = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
_PULL = ("Always", "IfNotPresent", "Never")
_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE = ("Disabled", "Enabled", "IfPossible")
_CLASH = "conflicting duplicate paths"
LONG_PORTAL = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if " + (
    "iscsi.initiatorName is specified."
)


def volumes(path: str, spec: Mapping[str, Any], pod_name: str) -> tuple[Volumes, Complaints]:
    """The volumes that are fine, by name, and complaints about the others."""
    wanted: Sequence[Mapping[str, Any]] = spec.get("volumes") or ()
    made = {f"{pod_name}-{volume.get('name')}" for volume in wanted if pod_name and "ephemeral" in volume}
    good: dict[str, Mapping[str, Any]] = {}
    found: Complaints = []
    for i, volume in enumerate(wanted):
        here, name = f"{path}[{i}]", volume.get("name") or ""
        own = source(here, volume)
        if "ephemeral" in volume and pod_name and name:
            claim_name = f"{pod_name}-{name}"
            texts = names.dns_subdomain(claim_name)
            own += [invalid(f"{here}.name", name, f'PVC name "{claim_name}": {text}') for text in texts]
        if not name:
            own.append(required(f"{here}.name"))
        else:
            own += [invalid(f"{here}.name", name, text) for text in names.dns_label(name)]
        if name in good:
            own.append(duplicate(f"{here}.name", name))
        if own:
            found += own
        else:
            good[name] = volume
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim in made:
            text = "must not reference a PVC that gets created for an ephemeral volume"
            found.append(invalid(f"{here}.persistentVolumeClaim.claimName", claim, text))
    return good, found


def source(path: str, volume: Mapping[str, Any]) -> Complaints:
    """Exactly one source, and that one right."""
    kinds = [key for key in volume if key != "name"]
    kinds.sort(key=lambda key: _ORDER.index(key) if key in _ORDER else len(_ORDER))
    if not kinds:
        return [required(path, "must specify a volume type")]
    check = _SOURCES.get(kinds[0])
    found = check(disks.place(path, kinds[0]), volume[kinds[0]]) if check else []
    if kinds[0] == "iscsi" and "initiatorName" in volume["iscsi"]:
        portal = f"{volume.get('name') or ''}:{volume['iscsi'].get('targetPortal') or ''}"
        found += [] if len(portal) <= 64 else [invalid(f"{path}.name", volume.get("name") or "", LONG_PORTAL)]
    return found + [forbidden(at, "may not specify more than 1 volume type") for at in disks.crowd(path, kinds[1:])]


def _mode(path: str, mode: int | None) -> Complaints:
    return [] if mode is None or 0 <= mode <= 0o777 else [invalid(path, mode, MODE)]


def _empty_dir(path: str, found: Mapping[str, Any]) -> Complaints:
    limit = found.get("sizeLimit")
    if limit is not None and quantity.parse(limit).nanos < 0:
        return [forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    return []


def host_path(path: str, found: Mapping[str, Any]) -> Complaints:
    """A hostPath source."""
    if not found.get("path"):
        return [required(f"{path}.path")]
    out = no_backsteps(f"{path}.path", found["path"])
    kind = found.get("type") or ""
    return out if kind in _HOST_PATHS else [*out, not_supported(f"{path}.type", kind, _HOST_PATHS)]


def _files(name_field: str) -> Callable[[str, Mapping[str, Any]], Complaints]:
    def check(path: str, found: Mapping[str, Any]) -> Complaints:
        out = [] if found.get(name_field) else [required(f"{path}.{name_field}")]
        out += _mode(f"{path}.defaultMode", found.get("defaultMode"))
        return out + _items(path, found)

    return check


def _items(path: str, found: Mapping[str, Any]) -> Complaints:
    return [
        error for i, item in enumerate(found.get("items") or ()) for error in _key_to_path(f"{path}.items[{i}]", item)
    ]


def _key_to_path(path: str, item: Mapping[str, Any]) -> Complaints:
    out = [required(f"{path}.{key}") for key in ("key", "path") if not item.get(key)]
    out += not_reserved(f"{path}.path", item.get("path") or "")
    return out + _mode(f"{path}.mode", item.get("mode"))


def _downward_file(path: str, item: Mapping[str, Any]) -> Complaints:
    out = [] if item.get("path") else [required(f"{path}.path")]
    out += not_reserved(f"{path}.path", item.get("path") or "")
    if "fieldRef" in item:
        out += env.field_ref(f"{path}.fieldRef", item["fieldRef"], env.VOLUME_FIELDS)
        if "resourceFieldRef" in item:
            out.append(invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
    elif "resourceFieldRef" in item:
        out += env.resource_ref(f"{path}.resourceFieldRef", item["resourceFieldRef"], volume=True)
    else:
        out.append(required(path, "one of fieldRef and resourceFieldRef is required"))
    return out + _mode(f"{path}.mode", item.get("mode"))


def _downward(path: str, found: Mapping[str, Any]) -> Complaints:
    out = _mode(f"{path}.defaultMode", found.get("defaultMode"))
    return out + [error for item in found.get("items") or () for error in _downward_file(path, item)]


def _projected(path: str, found: Mapping[str, Any]) -> Complaints:
    out = _mode(f"{path}.defaultMode", found.get("defaultMode"))
    taken: set[str] = set()

    def take(where: str, shown: str) -> None:
        if where and where in taken:
            out.append(invalid(path, shown, _CLASH))
        taken.add(where)

    for i, each in enumerate(found.get("sources") or ()):
        here = f"{path}.sources[{i}]"
        for key in ("secret", "configMap"):
            if key in each:
                out += [] if each[key].get("name") else [required(f"{here}.{key}.name")]
                out += _items(f"{here}.{key}", each[key])
                for item in each[key].get("items") or ():
                    take(item.get("path") or "", each[key].get("name") or "")
        for item in (each.get("downwardAPI") or {}).get("items") or ():
            out += _downward_file(f"{here}.downwardAPI", item)
            take(item.get("path") or "", item.get("path") or "")
        if "serviceAccountToken" in each:
            out += _token(path, f"{here}.serviceAccountToken", each["serviceAccountToken"])
        if "clusterTrustBundle" in each:
            out += _trust_bundle(f"{here}.clusterTrustBundle", each["clusterTrustBundle"])
            take(each["clusterTrustBundle"].get("path") or "", each["clusterTrustBundle"].get("path") or "")
        if len(each) > 1:
            out.append(forbidden(here, "may not specify more than 1 volume type per source"))
    return out


def _token(volume_path: str, path: str, token: Mapping[str, Any]) -> Complaints:
    seconds = token.get("expirationSeconds", 3600)
    out: Complaints = []
    if seconds < 600:
        out.append(invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"))
    if seconds > 2**32:
        out.append(invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds"))
    if not token.get("path"):
        return [*out, required(f"{volume_path}.path")]
    return out + not_reserved(f"{volume_path}.path", token["path"])


def _trust_bundle(path: str, bundle: Mapping[str, Any]) -> Complaints:
    out: Complaints = []
    if "name" in bundle and "signerName" in bundle:
        out.append(invalid(path, bundle, "only one of name and signerName may be used"))
    elif "name" not in bundle and "signerName" not in bundle:
        out.append(required(path, "either name or signerName must be specified"))
    if not bundle.get("path"):
        out.append(required(f"{path}.path"))
    return out + not_reserved(f"{path}.path", bundle.get("path") or "")


def nfs(path: str, found: Mapping[str, Any]) -> Complaints:
    """An NFS source."""
    out = disks.needs("server", "path")(path, found)
    where = found.get("path") or ""
    return out if where.startswith("/") else [*out, invalid(f"{path}.path", where, "must be an absolute path")]


def _git(path: str, found: Mapping[str, Any]) -> Complaints:
    return disks.needs("repository")(path, found) + descending(f"{path}.directory", found.get("directory") or "")


def _csi(path: str, found: Mapping[str, Any]) -> Complaints:
    out = driver_name(f"{path}.driver", found.get("driver") or "")
    if "nodePublishSecretRef" in found:
        name = found["nodePublishSecretRef"].get("name") or ""
        texts = names.dns_subdomain(name) if name else ()
        out += [invalid(f"{path}.name", name, text) for text in texts] if name else []
        out += [] if name else [required(f"{path}.nodePublishSecretRef.name")]
    return out


def driver_name(path: str, name: str) -> Complaints:
    """A CSI driver's name."""
    if not name:
        return [required(path)]
    out = [too_long(path, 63)] if len(name) > 63 else []
    return out + [invalid(path, name, text) for text in names.dns_subdomain(name.lower())]


def _ephemeral(path: str, found: Mapping[str, Any]) -> Complaints:
    claim = found.get("volumeClaimTemplate")
    if claim is None:
        return [required(f"{path}.volumeClaimTemplate")]
    from steersman.api.kinds.core import claimspec  # here: claims need nothing of pods, pods rarely need claims

    inner = f"{path}.volumeClaimTemplate"
    own = claim.get("metadata") or {}
    out = meta.validate_annotations(own.get("annotations"), f"{inner}.metadata.annotations")
    out += validate_labels(own.get("labels"), f"{inner}.metadata.labels")
    fields = [field.name for field in table().message("meta:ObjectMeta").declared]
    others = [name for name in fields if name in own and name not in ("labels", "annotations")]
    shown = ["uID" if name == "uid" else name for name in others]  # as Go's own names, but for the first letter
    out += [forbidden(f"{inner}.metadata.{name}", "cannot be set") for name in shown]
    return out + claimspec.validate(f"{inner}.spec", claim.get("spec") or {})


def _image(path: str, found: Mapping[str, Any]) -> Complaints:
    out = disks.needs("reference")(path, found)
    policy = found.get("pullPolicy") or ""
    if not policy:
        return [*out, required(f"{path}.pullPolicy")]
    return out if policy in _PULL else [*out, not_supported(f"{path}.pullPolicy", policy, _PULL)]


_OWN: dict[str, Callable[[str, Mapping[str, Any]], Complaints]] = {
    "emptyDir": _empty_dir,
    "hostPath": host_path,
    "gitRepo": _git,
    "secret": _files("secretName"),
    "nfs": nfs,
    "persistentVolumeClaim": disks.needs("claimName"),
    "downwardAPI": _downward,
    "configMap": _files("name"),
    "projected": _projected,
    "csi": _csi,
    "ephemeral": _ephemeral,
    "image": _image,
}
_SOURCES = {**disks.OF_PODS, **_OWN}
_ORDER = (
    *("emptyDir", "hostPath", "gitRepo", "gcePersistentDisk", "awsElasticBlockStore", "secret", "nfs", "iscsi"),
    *("glusterfs", "flocker", "persistentVolumeClaim", "rbd", "cinder", "cephfs", "quobyte", "downwardAPI", "fc"),
    *("flexVolume", "configMap", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk"),
    *("storageos", "projected", "scaleIO", "csi", "ephemeral", "image"),
)


def mounts(path: str, container: Mapping[str, Any], known: Volumes) -> Complaints:
    """A container's volumeMounts."""
    out: Complaints = []
    devices_by_name = {each.get("name"): each.get("devicePath") for each in container.get("volumeDevices") or ()}
    taken: set[str] = set()
    for i, mount in enumerate(container.get("volumeMounts") or ()):
        here, name, where = f"{path}[{i}]", mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            out.append(required(f"{here}.name"))
        if name not in known:
            out.append(not_found(f"{here}.name", name))
        if not where:
            out.append(required(f"{here}.mountPath"))
        if where in taken:
            out.append(invalid(f"{here}.mountPath", where, "must be unique"))
        taken.add(where)
        if name in devices_by_name:
            out.append(invalid(f"{here}.name", name, "must not already exist in volumeDevices"))
        if where in devices_by_name.values():
            out.append(invalid(f"{here}.mountPath", where, "must not already exist as a path in volumeDevices"))
        out += _mount_details(path, here, mount, container)
    return out


def _mount_details(path: str, here: str, mount: Mapping[str, Any], container: Mapping[str, Any]) -> Complaints:
    out: Complaints = []
    if below := mount.get("subPath"):
        out += descending(f"{path}.subPath", below)
    if expression := mount.get("subPathExpr"):
        if below:
            text = "subPathExpr and subPath are mutually exclusive"
            out.append(invalid(f"{here}.subPathExpr", expression, text))
        out += descending(f"{path}.subPathExpr", expression)
    propagation = mount.get("mountPropagation")
    if propagation is not None:
        if propagation not in _PROPAGATIONS:
            out.append(not_supported(f"{path}.mountPropagation", propagation, _PROPAGATIONS))
        elif propagation == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
            text = "Bidirectional mount propagation is available only to privileged containers"
            out.append(forbidden(f"{path}.mountPropagation", text))
    recursive = mount.get("recursiveReadOnly")
    if recursive is not None and recursive not in _RECURSIVE:
        out.append(not_supported(f"{path}.recursiveReadOnly", recursive, _RECURSIVE))
    elif recursive in ("Enabled", "IfPossible"):
        if not mount.get("readOnly"):
            out.append(forbidden(f"{path}.recursiveReadOnly", "may only be specified when readOnly is true"))
        if propagation not in (None, "None"):
            text = "may only be specified when mountPropagation is None or not specified"
            out.append(forbidden(f"{path}.recursiveReadOnly", text))
    return out


def devices(path: str, container: Mapping[str, Any], known: Volumes) -> Complaints:
    """A container's volumeDevices."""
    out: Complaints = []
    mounted = {each.get("name"): each.get("mountPath") for each in container.get("volumeMounts") or ()}
    seen_names: set[str] = set()
    seen_paths: set[str] = set()
    for i, device in enumerate(container.get("volumeDevices") or ()):
        here, name, where = f"{path}[{i}]", device.get("name") or "", device.get("devicePath") or ""
        if not name:
            out.append(required(f"{here}.name"))
        if name in seen_names:
            out.append(invalid(f"{here}.name", name, "must be unique"))
        if name not in known:
            out.append(not_found(f"{here}.name", name))
        elif not {"persistentVolumeClaim", "ephemeral"} & known[name].keys():
            text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            out.append(invalid(f"{here}.name", name, text))
        if not where:
            out.append(required(f"{here}.devicePath"))
        if where in seen_paths:
            out.append(invalid(f"{here}.devicePath", where, "must be unique"))
        if ".." in where.split("/"):
            out.append(invalid(f"{here}.devicePath", where, "can not contain backsteps ('..')"))
        else:
            seen_paths.add(where)
        if name in mounted:
            out.append(invalid(f"{here}.name", name, "must not already exist in volumeMounts"))
        if where in mounted.values():
            out.append(invalid(f"{here}.devicePath", where, "must not already exist as a path in volumeMounts"))
        seen_names.add(name)
    return out
