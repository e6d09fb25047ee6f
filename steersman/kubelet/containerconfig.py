"""A container as the engine takes it: command, environment, mounts, limits, confinement.

Called by `steps` with everything fetched; it touches the disk only to make the files that are mounted (termination
message, sub-paths). Source: Pod API, Container.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steersman.api.resource import Object
from steersman.engine.interface import ContainerConfig, Device, Image, Mount
from steersman.kubelet import downward, env, labels, podspec, resources, security
from steersman.kubelet.env import ConfigError
from steersman.kubelet.volumes import mounter, subpath
from steersman.kubelet.volumes.context import VolumeFailed

_PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared", "None": "private"}


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a container's configuration is made from, besides its pod."""

    image: Image
    restart_count: int
    fetched: env.Fetched
    services: Mapping[str, str]
    facts: downward.Facts
    volumes: Mapping[str, Path]
    image_volumes: Mapping[str, str]  # volume name to image id
    directories: mounter.PodDirectories
    hosts_file: Path | None
    memory_capacity: int
    seccomp_profiles: Path
    target_container: str = ""


def container_config(pod: Object, container: Object, given: Ingredients) -> ContainerConfig:
    """The configuration of a new run. Raises ConfigError."""
    variables = env.environment(pod, container, given.fetched, given.services, given.facts)
    known = dict(variables)
    message_file = _message_file(container, given.directories)
    mounts = _mounts(pod, container, known, given)
    if message_file is not None:
        mounts.append(Mount(container["terminationMessagePath"], str(message_file)))
    name = container["name"]
    return ContainerConfig(
        name=name,
        image=given.image.id,
        attempt=given.restart_count,
        command=[env.expand(each, known) for each in container.get("command") or ()],
        args=[env.expand(each, known) for each in container.get("args") or ()],
        working_dir=container.get("workingDir") or "",
        env=variables,
        mounts=mounts,
        devices=_devices(container, given),
        log_path=f"{name}/{given.restart_count}.log",
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        stop_signal=(container.get("lifecycle") or {}).get("stopSignal") or "",
        target_container=given.target_container,
        resources=resources.of_container(pod, container, given.memory_capacity),
        security=security.security(pod, container, given.image.config, given.seccomp_profiles),
        labels=labels.container_labels(pod, container),
        annotations=labels.container_annotations(pod, container, given.restart_count, str(message_file or "")),
    )


def _message_file(container: Object, directories: mounter.PodDirectories) -> Path | None:
    """A new empty file for the termination message, which the container sees at its terminationMessagePath."""
    if not container.get("terminationMessagePath"):
        return None
    directory = directories.root / "containers" / container["name"]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / secrets.token_hex(4)
    path.touch()
    os.chmod(path, 0o666)
    return path


def _mounts(pod: Object, container: Object, known: Mapping[str, str], given: Ingredients) -> list[Mount]:
    volumes = {each["name"]: each for each in pod["spec"].get("volumes") or ()}
    out: list[Mount] = []
    for index, wanted in enumerate(container.get("volumeMounts") or ()):
        out.append(_mount(container, index, wanted, volumes.get(wanted["name"]), known, given))
    if given.hosts_file is not None and all(each.container_path != "/etc/hosts" for each in out):
        out.append(Mount("/etc/hosts", str(given.hosts_file)))
    return out


def _mount(
    container: Object, index: int, wanted: Object, volume: Object | None, known: Mapping[str, str], given: Ingredients
) -> Mount:
    name = wanted["name"]
    sub_path = wanted.get("subPath") or ""
    if wanted.get("subPathExpr"):
        sub_path = env.expand_strict(wanted["subPathExpr"], known)
    path = wanted["mountPath"] if wanted["mountPath"].startswith("/") else "/" + wanted["mountPath"]
    propagation = _PROPAGATION.get(wanted.get("mountPropagation") or "None", "private")
    kind = mounter.kind_of(volume) if volume is not None else ""
    claimed_readonly = bool((volume or {}).get("persistentVolumeClaim", {}).get("readOnly"))
    readonly = (
        bool(wanted.get("readOnly"))
        or claimed_readonly
        or kind in ("configMap", "secret", "downwardAPI", "projected", "image")
    )
    recursive = readonly and wanted.get("recursiveReadOnly") in ("IfPossible", "Enabled")
    if name in given.image_volumes:
        return Mount(path, readonly=True, image=given.image_volumes[name], image_sub_path=sub_path)
    host_path = given.volumes.get(name)
    if host_path is None:
        raise ConfigError(f'cannot find volume "{name}" to mount into container "{container["name"]}"')
    if sub_path:
        try:
            target = given.directories.sub_path(name, container["name"], index)
            host_path = subpath.bind(host_path, sub_path, target)
        except VolumeFailed as error:
            raise ConfigError(str(error)) from None
        except OSError:
            # The detail would tell about the node's file system.
            text = f'failed to prepare subPath for volumeMount "{name}" of container "{container["name"]}"'
            raise ConfigError(text) from None
    return Mount(path, str(host_path), readonly=readonly, recursive_readonly=recursive, propagation=propagation)


def _devices(container: Object, given: Ingredients) -> Sequence[Device]:
    return [
        Device(each["devicePath"], str(given.volumes[each["name"]]))
        for each in container.get("volumeDevices") or ()
        if each["name"] in given.volumes
    ]


def needs_hosts_file(pod: Object, ips: Sequence[str]) -> bool:
    """Whether the kubelet gives this pod an /etc/hosts."""
    return bool(ips) or podspec.host_network(pod)
