"""Volume types by the name of their field in a volume. To add one: a file here, a line here, a test."""

from __future__ import annotations

from collections.abc import Mapping

from steersman.kubelet.volumes import configmap, downwardapi, emptydir, hostpath, local, projected, secret
from steersman.kubelet.volumes.context import Contents, Place

CONTENTS: Mapping[str, Contents] = {
    "configMap": configmap.files,
    "secret": secret.files,
    "downwardAPI": downwardapi.files,
    "projected": projected.files,
}
"""Types whose files come from the API and follow it."""

PLACES: Mapping[str, Place] = {
    "emptyDir": emptydir.place,
    "hostPath": hostpath.place,
    "local": local.place,
}
"""Types that are a place on the node."""
