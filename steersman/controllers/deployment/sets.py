"""A Deployment's ReplicaSets as the plan sees them: which is new, revisions, annotations, sizes.

Owns `Sized`, a ReplicaSet with what the plan wants of it. Pure. Source: kubernetes' pkg/controller/deployment/util.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from steersman.api.resource import DEPLOYMENTS, Object
from steersman.client.workload import created_at, owner_reference, safe_hash, scaled, without_label

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MOST = "deployment.kubernetes.io/max-replicas"

_HISTORY_LIMIT = 2000  # characters
_NAME_LIMIT = 253
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        HISTORY,
        DESIRED,
        MOST,
        "deprecated.deployment.rollback.to",
    }
)


@dataclass(slots=True)
class Sized:
    """A ReplicaSet, and the size and annotations that it shall have. `original` is None before it is created."""

    original: Object | None
    body: Object
    replicas: int
    annotations: dict[str, str]
    min_ready: int

    @classmethod
    def of(cls, found: Object) -> Sized:
        """An existing ReplicaSet as it is."""
        spec = found["spec"]
        annotations = dict(found["metadata"].get("annotations") or {})
        return cls(found, found, spec.get("replicas", 1), annotations, spec.get("minReadySeconds") or 0)

    @property
    def name(self) -> str:
        """metadata.name."""
        return str(self.body["metadata"]["name"])

    @property
    def revision(self) -> int:
        """The revision annotation; 0 when there is none that can be read."""
        return _number(self.annotations.get(REVISION)) or 0

    def count(self, field: str) -> int:
        """A number of the status."""
        return int((self.body.get("status") or {}).get(field) or 0)

    @property
    def observed(self) -> bool:
        """Whether the status speaks of the size that the set has."""
        return self.original is None or self.count("observedGeneration") >= self.body["metadata"].get("generation", 0)

    @property
    def present(self) -> int:
        """The most pods that there can be: those asked for, or those that are still to be deleted."""
        return max(self.replicas, self.count("replicas"))

    @property
    def available(self) -> int:
        """The pods that can be counted on: of those available, as many as may stay."""
        return min(self.replicas, self.count("availableReplicas"))

    def wanted(self) -> Object:
        """The object as it shall be."""
        meta = {**self.body["metadata"], "annotations": self.annotations}
        spec = {**self.body["spec"], "replicas": self.replicas}
        if self.min_ready or "minReadySeconds" in spec:
            spec["minReadySeconds"] = self.min_ready
        return {**self.body, "metadata": meta, "spec": spec}

    def changed(self) -> bool:
        """Whether it must be written."""
        return self.original is None or Sized.of(self.original) != self


@dataclass(frozen=True, slots=True)
class Strategy:
    """A Deployment's numbers: how many pods, how many more or fewer for a while."""

    replicas: int
    surge: int
    unavailable: int
    rolling: bool

    @classmethod
    def of(cls, deployment: Object) -> Strategy:
        """Percentages resolved: surge rounds up, unavailable down, and both 0 means 1 unavailable."""
        spec = deployment["spec"]
        replicas = spec.get("replicas", 1)
        strategy = spec.get("strategy") or {}
        if strategy.get("type") == "Recreate":
            return cls(replicas, 0, 0, False)
        limits = strategy.get("rollingUpdate") or {}
        surge = scaled(limits.get("maxSurge", "25%"), replicas, up=True)
        unavailable = scaled(limits.get("maxUnavailable", "25%"), replicas, up=False)
        if surge == 0 and unavailable == 0:
            unavailable = 1
        return cls(replicas, surge, min(unavailable, replicas), True)

    @property
    def most(self) -> int:
        """The most pods at any time."""
        return self.replicas + self.surge

    @property
    def least(self) -> int:
        """The fewest available pods."""
        return self.replicas - self.unavailable


def split(deployment: Object, found: Iterable[Object]) -> tuple[Sized | None, list[Sized]]:
    """The set with the Deployment's template (the oldest of several), and all others, oldest first."""
    wanted = without_label(deployment["spec"]["template"], HASH_LABEL)
    ordered = [Sized.of(each) for each in sorted(found, key=lambda each: (created_at(each), each["metadata"]["name"]))]
    for position, each in enumerate(ordered):
        if without_label(each.body["spec"]["template"], HASH_LABEL) == wanted:
            return each, ordered[:position] + ordered[position + 1 :]
    return None, ordered


def next_revision(old: Sequence[Sized]) -> int:
    """One more than any old set has."""
    return max((each.revision for each in old), default=0) + 1


def fresh(deployment: Object, revision: int) -> Sized:
    """The ReplicaSet for the Deployment's template, of size 0 and not yet created."""
    meta, spec = deployment["metadata"], deployment["spec"]
    template = spec["template"]
    digest = safe_hash(without_label(template, HASH_LABEL), (deployment.get("status") or {}).get("collisionCount"))
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: digest}
    selector = spec["selector"]
    body: Object = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta['name'][: _NAME_LIMIT - 1 - len(digest)]}-{digest}",
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [owner_reference(deployment, DEPLOYMENTS)],
        },
        "spec": {
            "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}},
            "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}},
        },
    }
    made = Sized(None, body, 0, {}, spec.get("minReadySeconds") or 0)
    annotate(made, deployment, revision)
    return made


def annotate(new: Sized, deployment: Object, revision: int) -> None:
    """Give the new set the Deployment's annotations and its revision; a revision that it had goes to its history."""
    for key, value in (deployment["metadata"].get("annotations") or {}).items():
        if key not in _NOT_COPIED:
            new.annotations[key] = value
    old = new.annotations.get(REVISION)
    if old is not None and _number(old) is None:
        return
    if new.revision >= revision:
        return
    new.annotations[REVISION] = str(revision)
    if old is not None:
        kept = [each for each in new.annotations.get(HISTORY, "").split(",") if each]
        while kept and len(",".join([*kept, old])) > _HISTORY_LIMIT:
            kept.pop(0)
        new.annotations[HISTORY] = ",".join([*kept, old])


def note_size(each: Sized, strategy: Strategy) -> None:
    """Remember the size of the whole, from which a later change of scale works out each set's share."""
    each.annotations[DESIRED], each.annotations[MOST] = str(strategy.replicas), str(strategy.most)


def noted(annotations: Mapping[str, str], key: str) -> int | None:
    """A size remembered by `note_size`."""
    return _number(annotations.get(key))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 20 else None
