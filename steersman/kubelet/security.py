"""A container's security context as the engine takes it.

Pure. Owns the merging of pod and container settings, and the refusal to run as root where runAsNonRoot says so.
Source: documentation of security contexts.
"""

from __future__ import annotations

from pathlib import Path

from steersman.api.resource import Object
from steersman.engine.interface import ImageConfig, Security
from steersman.kubelet.env import ConfigError


def effective(pod: Object, container: Object) -> Object:
    """The container's settings with the pod's where it has none."""
    out = dict(pod["spec"].get("securityContext") or {})
    out.update({key: value for key, value in (container.get("securityContext") or {}).items() if value is not None})
    return out


def security(pod: Object, container: Object, image: ImageConfig, seccomp_profiles: Path) -> Security:
    """How to confine a container. Raises ConfigError when runAsNonRoot can not be kept."""
    context = effective(pod, container)
    user, username = _user(context, image)
    if context.get("runAsNonRoot"):
        _check_non_root(pod, container, context, user, username)
    capabilities = context.get("capabilities") or {}
    privileged = bool(context.get("privileged"))
    pod_context = pod["spec"].get("securityContext") or {}
    groups = [pod_context["fsGroup"]] if pod_context.get("fsGroup") is not None else []
    groups += pod_context.get("supplementalGroups") or []
    unmasked = context.get("procMount") == "Unmasked"
    return Security(
        privileged=privileged,
        run_as_user=context.get("runAsUser"),
        run_as_group=context.get("runAsGroup"),
        supplemental_groups=[int(each) for each in groups],
        supplemental_groups_policy=pod_context.get("supplementalGroupsPolicy") or "Merge",
        readonly_rootfs=bool(context.get("readOnlyRootFilesystem")),
        no_new_privs=context.get("allowPrivilegeEscalation") is False,
        add_capabilities=list(capabilities.get("add") or ()),
        drop_capabilities=list(capabilities.get("drop") or ()),
        seccomp=_seccomp(context, seccomp_profiles, privileged=privileged),
        apparmor=_apparmor(context),
        masked_paths=() if unmasked else None,
        readonly_paths=() if unmasked else None,
    )


def _user(context: Object, image: ImageConfig) -> tuple[int | None, str]:
    """The user that the process will have: a number, or the name that the image gives."""
    if context.get("runAsUser") is not None:
        return int(context["runAsUser"]), ""
    name = image.user.split(":")[0]
    if not name:
        return 0, ""
    return (int(name), "") if name.isdigit() else (None, name)


def _check_non_root(pod: Object, container: Object, context: Object, user: int | None, username: str) -> None:
    meta = pod["metadata"]
    where = (
        f'(pod: "{meta["name"]}_{meta.get("namespace", "")}({meta.get("uid", "")})", container: {container["name"]})'
    )
    if user == 0 and context.get("runAsUser") is not None:
        raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
    if user == 0:
        raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    if user is None:
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({username}), cannot verify user is non-root "
            + where
        )


def _seccomp(context: Object, profiles: Path, *, privileged: bool) -> str:
    profile = context.get("seccompProfile") or {}
    kind = profile.get("type")
    if privileged or kind == "Unconfined":
        return "Unconfined"
    if kind == "Localhost":
        name = Path(str(profile.get("localhostProfile") or ""))
        if name.is_absolute() or ".." in name.parts:
            raise ConfigError(f"seccomp profile path {name} must be relative and not contain '..'")
        return str(profiles / name)
    return "RuntimeDefault"


def _apparmor(context: Object) -> str:
    profile = context.get("appArmorProfile") or {}
    kind = profile.get("type") or ""
    return str(profile.get("localhostProfile") or "") if kind == "Localhost" else str(kind)
