"""What a build knows while it goes through one stage: layers, configuration, history, arguments.

Owns the image's config document as it grows. Pure. Called by `builder`. Source: OCI image configuration, with Docker's
fields for what OCI has none (Healthcheck, OnBuild, Shell).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from steersman.engine.images.index import Layer
from steersman.engine.images.manifest import OCI_CONFIG, OCI_MANIFEST, this_platform
from steersman.lib.clock import rfc3339

SHELL = ("/bin/sh", "-c")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Stage:
    """One stage so far. `args`: build arguments that are in scope."""

    name: str = ""
    document: dict[str, Any] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    args: dict[str, str] = field(default_factory=dict)
    has_cmd: bool = False  # CMD was set in this stage, so ENTRYPOINT leaves it alone

    @property
    def config(self) -> dict[str, Any]:
        """The part of the document that says how to run the image."""
        return self.document.setdefault("config", {})

    @property
    def env(self) -> dict[str, str]:
        """The image's variables."""
        return dict(each.partition("=")[::2] for each in self.config.get("Env") or ())

    def set_env(self, name: str, value: str) -> None:
        """Add or replace a variable, in its place."""
        entries = [each for each in self.config.get("Env") or () if each.partition("=")[0] != name]
        index = next((i for i, each in enumerate(self.config.get("Env") or ()) if each.partition("=")[0] == name), None)
        entries.insert(len(entries) if index is None else index, f"{name}={value}")
        self.config["Env"] = entries

    @property
    def variables(self) -> dict[str, str]:
        """What `$NAME` means here: the image's variables win over build arguments."""
        return {**self.args, **self.env}

    @property
    def shell(self) -> list[str]:
        """What shell forms are run by."""
        return list(self.config.get("Shell") or SHELL)

    @property
    def directory(self) -> str:
        """The working directory."""
        return self.config.get("WorkingDir") or "/"

    def remember(self, what: str, now: float, layer: Layer | None) -> None:
        """A line of history, and the layer that the step made."""
        entry: dict[str, Any] = {"created": rfc3339(now), "created_by": what, "comment": "steersman"}
        if layer is None:
            entry["empty_layer"] = True
        else:
            self.layers.append(layer)
        self.document.setdefault("history", []).append(entry)

    def key(self, *more: object) -> str:
        """All that a step's result depends on, as text for a cache key."""
        known = {name: self.config.get(name) for name in ("Env", "User", "WorkingDir", "Shell")}
        return json.dumps([[layer.diff_id for layer in self.layers], known, self.args, *more], sort_keys=True)

    def finish(self, now: float) -> bytes:
        """The config document's bytes."""
        platform = this_platform()
        self.document.setdefault("architecture", platform.architecture)
        self.document.setdefault("os", platform.os)
        self.document["created"] = rfc3339(now)
        self.document["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]}
        return json.dumps(self.document).encode()


def manifest(config_digest: str, config_size: int, layers: list[Layer]) -> bytes:
    """The manifest's bytes."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config_digest, "size": config_size},
            "layers": [
                {"mediaType": _oci(layer.media_type), "digest": layer.digest, "size": layer.size} for layer in layers
            ],
        }
    ).encode()


def _oci(media_type: str) -> str:
    """Layers of a Docker schema 2 image under OCI's name."""
    if media_type.startswith("application/vnd.docker.image.rootfs."):
        return "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if media_type.endswith("gzip") else "")
    return media_type
