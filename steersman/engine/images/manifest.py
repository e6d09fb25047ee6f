"""Manifests, indexes and configs of images: OCI's and Docker's media types, read strictly.

Owns what these JSON documents mean. Pure. Source: OCI image specification 1.1; Docker's image manifest version 2,
schema 2. Schema 1 is refused, as containerd does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from steersman.engine.images.reference import is_digest
from steersman.engine.interface import ImageConfig
from steersman.lib.clock import parse_rfc3339

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MANIFESTS = (DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX)
INDEXES = (DOCKER_LIST, OCI_INDEX)
_MACHINES = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "v8"), "armv7l": ("arm", "v7"), "i686": ("386", "")}


class BadManifest(Exception):
    """A document is not what its media type says."""


class Platform(msgspec.Struct, frozen=True):
    """Where an image runs, in Go's words."""

    architecture: str = ""
    os: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A pointer to content. `size` in bytes."""

    media_type: str
    size: int
    digest: str
    platform: Platform | None = None
    annotations: dict[str, str] | None = None
    urls: list[str] | None = None


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """One image for one platform."""

    config: Descriptor
    layers: list[Descriptor]
    media_type: str = ""


class ImageIndex(msgspec.Struct, frozen=True, rename="camel"):
    """Images for several platforms."""

    manifests: list[Descriptor]
    media_type: str = ""


class _RootFs(msgspec.Struct):
    diff_ids: list[str]


class _Runtime(msgspec.Struct, rename="pascal"):
    entrypoint: list[str] | str | None = None
    cmd: list[str] | str | None = None
    env: list[str] | None = None
    working_dir: str | None = None
    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    volumes: dict[str, Any] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None


class _Config(msgspec.Struct):
    rootfs: _RootFs
    config: _Runtime | None = None
    created: str | None = None


def this_platform() -> Platform:
    """The machine's own."""
    architecture, variant = _MACHINES.get(os.uname().machine, (os.uname().machine, ""))
    return Platform(architecture, "linux", variant)


def media_type(body: bytes, said: str) -> str:
    """The media type of a manifest or index: what the document says, else what the server said. Raises BadManifest."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise BadManifest(f"invalid manifest: {error}") from error
    inner = found.get("mediaType") or ""
    if found.get("schemaVersion") == 1 or ".distribution.manifest.v1+" in said:
        raise BadManifest(f"media type {said!r} is no longer supported, please rebuild the image as Docker v2 or OCI")
    if inner and said in MANIFESTS and inner != said:
        raise BadManifest(f"mediaType in manifest should be {said!r} not {inner!r}")
    kind = inner or (said if said in MANIFESTS else "")
    if not kind:
        kind = OCI_INDEX if "manifests" in found else OCI_MANIFEST
    if kind not in MANIFESTS:
        raise BadManifest(f"unsupported media type {kind!r}")
    if (kind in INDEXES) != ("manifests" in found) or ("manifests" in found and "layers" in found):
        raise BadManifest("media-type confusion: an index has manifests, a manifest has layers")
    return kind


def read_index(body: bytes) -> ImageIndex:
    """Raises BadManifest."""
    return _decode(body, ImageIndex, "index")


def read_manifest(body: bytes) -> Manifest:
    """Raises BadManifest."""
    manifest = _decode(body, Manifest, "manifest")
    for each in (manifest.config, *manifest.layers):
        if not is_digest(each.digest) or each.size < 0:
            raise BadManifest(f"invalid descriptor {each.digest!r}")
    return manifest


def read_config(body: bytes) -> tuple[ImageConfig, list[str], float]:
    """(how to run it, diff ids bottom first, creation in Unix seconds or 0). Raises BadManifest."""
    found = _decode(body, _Config, "image config")
    for diff_id in found.rootfs.diff_ids:
        if not is_digest(diff_id):
            raise BadManifest(f"invalid diff id {diff_id!r}")
    run = found.config or _Runtime()
    config = ImageConfig(
        entrypoint=_words(run.entrypoint),
        cmd=_words(run.cmd),
        env=tuple((name, value) for name, _, value in (each.partition("=") for each in run.env or ())),
        working_dir=run.working_dir or "",
        user=run.user or "",
        exposed_ports=tuple(run.exposed_ports or ()),
        volumes=tuple(run.volumes or ()),
        labels=run.labels or {},
        stop_signal=run.stop_signal or "",
    )
    try:
        created = parse_rfc3339(found.created) if found.created else 0.0
    except (ValueError, OverflowError):
        created = 0.0
    return config, found.rootfs.diff_ids, max(created, 0.0)


def _words(value: list[str] | str | None) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(value or ())


def _decode(body: bytes, kind: type, what: str) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise BadManifest(f"invalid {what}: {error}") from error


def choose(manifests: Sequence[Descriptor], wanted: Platform) -> Descriptor | None:
    """The best manifest of an index for a platform; one without a platform serves when nothing better is there."""
    best: Descriptor | None = None
    best_rank = 0
    for each in manifests:
        rank = _rank(each.platform, wanted)
        if rank > best_rank and each.media_type in MANIFESTS and is_digest(each.digest):
            best, best_rank = each, rank
    return best


def _rank(found: Platform | None, wanted: Platform) -> int:
    if found is None:
        return 1
    if (found.os, found.architecture) != (wanted.os, wanted.architecture):
        return 0
    return 3 if found.variant in ("", wanted.variant) else 2
