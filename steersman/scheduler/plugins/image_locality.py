"""ImageLocality: nodes that have a pod's large images already are better, the more so the more nodes have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from steersman.scheduler.columns import Columns, Mask
from steersman.scheduler.framework import Plugin, Scores
from steersman.scheduler.podinfo import PodInfo

_LEAST, _MOST = 23 * 1024 * 1024, 1000 * 1024 * 1024  # bytes a container: below is not worth it, above is enough


def score(columns: Columns, pod: PodInfo, feasible: Mask) -> Scores | None:
    """The bytes that need not be pulled, each image's by the share of nodes that have it. Source: image_locality.go."""
    spec = pod.pod["spec"]
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    found = [column for each in containers if (column := columns.images.get(_named(each.get("image", "")))) is not None]
    if not found:
        return None
    total = np.zeros(len(feasible), np.float64)
    for column in found:
        total += np.floor(column * (np.count_nonzero(column) / max(len(columns), 1)))
    least, most = _LEAST, _MOST * len(containers)
    return np.floor(100 * (np.clip(total, least, most) - least) / (most - least))


def _named(image: str) -> str:
    """An image's name as nodes report it: with a tag."""
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


def make(args: Mapping[str, Any]) -> Plugin:
    """It has no arguments."""
    return Plugin("ImageLocality", score=score)
