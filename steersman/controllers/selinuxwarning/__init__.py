"""SELinux warnings: pods that could not use their volume side by side, once volumes are mounted with a label.

Owns nothing but events and the metric `selinux_warning_controller_selinux_volume_conflict`. It runs only when it is
asked for by name, as in the original, and takes for granted that nodes have SELinux. It looks at pods with volumes of
CSI, iSCSI, FC, NFS and directories; volumes of in-tree plugins that drivers serve are left out.
Source: kubernetes' pkg/controller/volume/selinuxwarning, KEP-1710.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from steersman.api import pods
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Object, Resource
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch, key_of
from steersman.client.metrics import Metrics
from steersman.controllers.selinuxwarning.conflicts import Conflict, Use, Uses, label_of

CSIDRIVERS = Resource("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False)
_BY_CLAIM = "claims of a pod"
_SOURCES = ("csi", "hostPath", "nfs", "iscsi", "fc")
_LABELS = ("property", "pod1_namespace", "pod1_name", "pod1_value", "pod2_namespace", "pod2_name", "pod2_value")


@dataclass(slots=True)
class _Shown:
    """Conflicts as the metric shows them: one that two volumes have is there once."""

    metrics: Metrics
    count: Counter[Conflict] = field(default_factory=Counter)

    def tell(self, conflict: Conflict, there: bool) -> None:
        """A conflict has come or gone."""
        name, text = "selinux_warning_controller_selinux_volume_conflict", "Pods that cannot share a volume's label."
        family = self.metrics.gauge(name, text, _LABELS)
        one, value, other = conflict.pod, conflict.value, conflict.other
        labels = (conflict.property, *one, value, *other, conflict.other_value)
        self.count[conflict] += 1 if there else -1
        if self.count[conflict]:
            family.labels(*labels).set(1)
        else:
            del self.count[conflict]
            family.forget(*labels)


def _uses(context: Context) -> Uses:
    found: Uses | None = context.memory.get(Uses)
    if found is None:
        found = context.memory[Uses] = Uses(_Shown(context.metrics).tell)
    return found


async def reconcile(context: Context, key: Key) -> Result:
    """Look at one pod's volumes. Raises OSError for a volume that has two labels in the pod itself."""
    pod = context.informer(PODS).get(*key)
    uses = _uses(context)
    if pod is None or pods.is_terminal(pod):
        uses.remove(key)
        return DONE
    named = {each["name"]: each for each in pod["spec"].get("volumes") or ()}
    twice = ""
    for name, labels in sorted(mounted(pod).items()):
        volume = _source(context, pod, named[name]) if name in named else None
        if volume is None:
            continue
        if len(labels) > 1:
            twice = f'Volume "{name}" is mounted twice with different SELinux labels inside this pod'
            context.recorder.event(pod, "Warning", "MultipleSELinuxLabels", twice)
            continue
        _look(context, uses, pod, volume, next(iter(labels), ""))
    if twice:
        raise OSError(twice)
    return DONE


def _look(context: Context, uses: Uses, pod: Object, source: Object, label: str) -> None:
    name, kind = unique_name(source)
    driver = source["csi"]["driver"] if kind == "csi" else ""
    asked = (pod["spec"].get("securityContext") or {}).get("seLinuxChangePolicy") or "MountOption"
    if not _mounts_with_label(context, kind, driver) or asked == "Recursive" or not label:
        label, asked = "", "Recursive"
    for conflict in uses.add(name, key_of(pod), Use(label, asked), driver):
        regarding = context.informer(PODS).get(*conflict.pod)
        if regarding is None:
            return
        context.recorder.event(regarding, "Normal", conflict.reason, conflict.message)


def mounted(pod: Object) -> dict[str, set[str]]:
    """The labels with which the pod's containers use each volume; none where nobody says."""
    usual = (pod["spec"].get("securityContext") or {}).get("seLinuxOptions")
    found: dict[str, set[str]] = {}
    for _, container in pods.every_container(pod["spec"]):
        options = (container.get("securityContext") or {}).get("seLinuxOptions") or usual
        for mount in container.get("volumeMounts") or ():
            labels = found.setdefault(mount["name"], set())
            if options is not None:
                labels.add(label_of(options))
    return found


def _source(context: Context, pod: Object, volume: Object) -> Object | None:
    """Where the volume's data is: the spec of its PersistentVolume, or its own; None for what nodes make."""
    claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
    if volume.get("ephemeral") is not None:
        claim = f"{pod['metadata']['name']}-{volume['name']}"
    if claim is None:
        return volume if any(volume.get(kind) for kind in _SOURCES if kind != "csi") else None
    found = context.informer(PERSISTENTVOLUMECLAIMS).get(pod["metadata"]["namespace"], claim)
    if found is None or (found.get("status") or {}).get("phase") != "Bound":
        return None
    bound = context.informer(PERSISTENTVOLUMES).get("", found["spec"].get("volumeName") or "")
    if bound is None or (bound["spec"].get("claimRef") or {}).get("uid") != found["metadata"]["uid"]:
        return None
    spec: Object = bound["spec"]
    return spec if any(spec.get(kind) for kind in _SOURCES) else None


def unique_name(source: Object) -> tuple[str, str]:
    """A volume's name in all its pods, and its kind."""
    kind = next(kind for kind in _SOURCES if source.get(kind))
    at = source[kind]
    if kind == "csi":
        name = f"kubernetes.io/csi/{at['driver']}^{at['volumeHandle']}"
    elif kind == "hostPath":
        name = f"kubernetes.io/host-path/{at['path']}"
    elif kind == "nfs":
        name = f"kubernetes.io/nfs/{at['server']}/{at['path']}"
    elif kind == "iscsi":
        name = f"kubernetes.io/iscsi/{at['targetPortal']}:{at['iqn']}:{at.get('lun', 0)}"
    else:
        names = at.get("targetWWNs")
        where = f"[{' '.join(names)}]:{at.get('lun', 0)}" if names else f"[{' '.join(at.get('wwids') or ())}]"
        name = f"kubernetes.io/fc/{where}"
    return name, kind


def _mounts_with_label(context: Context, kind: str, driver: str) -> bool:
    """Whether such volumes are mounted with a label instead of being relabelled file by file."""
    if kind != "csi":
        return kind in ("iscsi", "fc")
    found = context.informer(CSIDRIVERS).get("", driver)
    return found is not None and (found.get("spec") or {}).get("seLinuxMount") is True


def _claims_of(pod: Object) -> Iterable[str]:
    for each in pod["spec"].get("volumes") or ():
        claim = (each.get("persistentVolumeClaim") or {}).get("claimName")
        if each.get("ephemeral") is not None:
            claim = f"{pod['metadata']['name']}-{each['name']}"
        if claim:
            yield f"{pod['metadata']['namespace']}/{claim}"


def _of_claim(context: Context, claim: Object) -> Iterable[Key]:
    if claim["spec"].get("volumeName"):
        yield from map(key_of, context.informer(PODS).by_index(_BY_CLAIM, str(key_of(claim))))


def _of_volume(context: Context, volume: Object) -> Iterable[Key]:
    reference = volume["spec"].get("claimRef") or {}
    if reference.get("uid"):
        at = f"{reference.get('namespace', '')}/{reference.get('name', '')}"
        yield from map(key_of, context.informer(PODS).by_index(_BY_CLAIM, at))


CONTROLLER = Controller(
    "selinux-warning-controller",
    reconcile,
    (
        For(PODS),
        Watch(PERSISTENTVOLUMECLAIMS, _of_claim),
        Watch(PERSISTENTVOLUMES, _of_volume),
        Watch(CSIDRIVERS, lambda context, driver: _uses(context).of_driver(driver["metadata"]["name"])),
    ),
    workers=1,
    indexes={PODS: {_BY_CLAIM: _claims_of}},
    component="selinux_warning",
)
