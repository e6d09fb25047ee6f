"""The Pod Security Standards: one small function for each control.

Owns which levels and versions each control belongs to, and the words of its refusal. Called by `plugin.py`. Pure: a
check gets a pod's metadata and spec and returns (reason, detail), or None when the pod passes. Source: KEP-2579;
pod-security-admission's policy package.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.api.resource import Object

Found = tuple[str, str] | None
Checked = Callable[[Object, Object], Found]
NEWEST = 99
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_CAPABILITIES = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
_SYSCTLS_0 = frozenset(
    [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
    ]
)
_SYSCTLS_27 = _SYSCTLS_0 | {"net.ipv4.ip_local_reserved_ports"}
_SYSCTLS_29 = _SYSCTLS_27 | {
    f"net.ipv4.tcp_{name}" for name in ("keepalive_time", "fin_timeout", "keepalive_intvl", "keepalive_probes")
}
_SYSCTLS_32 = _SYSCTLS_29 | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}
_SELINUX_0 = frozenset(("", "container_t", "container_init_t", "container_kvm_t"))
_SELINUX_31 = _SELINUX_0 | {"container_engine_t"}
_VOLUMES = frozenset(
    [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ]
)


@dataclass(frozen=True, slots=True)
class Check:
    """One control. `since` maps the minor version from which a function is the one; `instead_of` names one."""

    id: str
    restricted: bool
    since: Mapping[int, Checked]
    instead_of: str = ""

    def at(self, minor: int) -> Checked | None:
        """The function for a version of the standards; None before the first."""
        fitting = [start for start in self.since if start <= minor]
        return self.since[max(fitting)] if fitting else None


def evaluate(level: str, minor: int, meta: Object, spec: Object) -> list[tuple[str, str]]:
    """What a level forbids in a pod, baseline first, in the order of the checks' names."""
    if level == "privileged":
        return []
    active = [check for check in ALL if check.at(minor) and (level == "restricted" or not check.restricted)]
    replaced = {check.instead_of for check in active if check.restricted}
    found = []
    for check in sorted(active, key=lambda one: (one.restricted, one.id)):
        judge = check.at(minor)
        if check.id not in replaced and judge is not None and (problem := judge(meta, spec)):
            found.append(problem)
    return found


def containers(spec: Object) -> Iterator[Object]:
    """Every container of a pod."""
    for key in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(key) or ()


def _security(holder: Object) -> Object:
    return holder.get("securityContext") or {}


def _quoted(items: Collection[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def _plural(word: str, items: Collection[Any]) -> str:
    return word if len(items) == 1 else f"{word}s"


def _named(names: Sequence[str]) -> str:
    return f"{_plural('container', names)} {_quoted(names)}"


def _setters(*, pod: bool, bad: Sequence[str]) -> str:
    return " and ".join([*(["pod"] if pod else []), *([_named(bad)] if bad else [])])


def _where(spec: Object, wrong: Callable[[Object], bool]) -> list[str]:
    """The names of the containers whose security context is wrong."""
    return [each["name"] for each in containers(spec) if wrong(_security(each))]


def _unless_windows(check: Checked) -> Checked:
    def relaxed(meta: Object, spec: Object) -> Found:
        return None if (spec.get("os") or {}).get("name") == "windows" else check(meta, spec)

    return relaxed


def _unless_user_namespace(check: Checked) -> Checked:
    def relaxed(meta: Object, spec: Object) -> Found:
        return None if spec.get("hostUsers") is False else check(meta, spec)

    return relaxed


def _escalation(meta: Object, spec: Object) -> Found:
    bad = _where(spec, lambda context: context.get("allowPrivilegeEscalation") is not False)
    text = f"{_named(bad)} must set securityContext.allowPrivilegeEscalation=false"
    return ("allowPrivilegeEscalation != false", text) if bad else None


def _apparmor(meta: Object, spec: Object) -> Found:
    def kind(context: Object) -> str | None:
        profile = context.get("appArmorProfile")
        return (
            None if profile is None or profile.get("type") in ("RuntimeDefault", "Localhost") else profile.get("type")
        )

    values = {value for value in map(kind, map(_security, [spec, *containers(spec)])) if value is not None}
    bad = _where(spec, lambda context: kind(context) is not None)
    marks = sorted(
        f'{key}="{value}"'
        for key, value in (meta.get("annotations") or {}).items()
        if key.startswith(_APPARMOR) and value and value != "runtime/default" and not value.startswith("localhost/")
    )
    setters = _setters(pod=kind(_security(spec)) is not None, bad=bad)
    who = " and ".join(filter(None, [setters, _plural("annotation", marks) if marks else ""]))
    listed = [*sorted(values), *marks]
    text = f"{who} must not set AppArmor profile type to {_quoted(listed)}"
    return (_plural("forbidden AppArmor profile", listed), text) if who else None


def _capabilities(meta: Object, spec: Object) -> Found:
    def added(context: Object) -> set[str]:
        return set((context.get("capabilities") or {}).get("add") or ()) - _CAPABILITIES

    bad = _where(spec, lambda context: bool(added(context)))
    which = sorted(set().union(*(added(_security(each)) for each in containers(spec))))
    text = f"{_named(bad)} must not include {_quoted(which)} in securityContext.capabilities.add"
    return ("non-default capabilities", text) if bad else None


def _capabilities_restricted(meta: Object, spec: Object) -> Found:
    def added(context: Object) -> set[str]:
        return set((context.get("capabilities") or {}).get("add") or ()) - {"NET_BIND_SERVICE"}

    keeping = _where(spec, lambda context: "ALL" not in ((context.get("capabilities") or {}).get("drop") or ()))
    adding = _where(spec, lambda context: bool(added(context)))
    texts = [f'{_named(keeping)} must set securityContext.capabilities.drop=["ALL"]'] if keeping else []
    if adding:
        which = sorted(set().union(*(added(_security(each)) for each in containers(spec))))
        texts.append(f"{_named(adding)} must not include {_quoted(which)} in securityContext.capabilities.add")
    return ("unrestricted capabilities", "; ".join(texts)) if texts else None


def _host_namespaces(meta: Object, spec: Object) -> Found:
    bad = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    return ("host namespaces", ", ".join(bad)) if bad else None


def _host_paths(meta: Object, spec: Object) -> Found:
    bad = [volume["name"] for volume in spec.get("volumes") or () if volume.get("hostPath") is not None]
    return ("hostPath volumes", f"{_plural('volume', bad)} {_quoted(bad)}") if bad else None


def _host_ports(meta: Object, spec: Object) -> Found:
    def ports(container: Object) -> list[str]:
        return [str(port["hostPort"]) for port in container.get("ports") or () if port.get("hostPort")]

    bad = [each["name"] for each in containers(spec) if ports(each)]
    used = sorted({port for each in containers(spec) for port in ports(each)})
    verb = "uses" if len(bad) == 1 else "use"
    return ("hostPort", f"{_named(bad)} {verb} {_plural('hostPort', used)} {', '.join(used)}") if bad else None


def _probe_hosts(meta: Object, spec: Object) -> Found:
    def hosts(container: Object) -> Iterator[str]:
        probes = [container.get(f"{kind}Probe") for kind in ("liveness", "readiness", "startup")]
        hooks = [(container.get("lifecycle") or {}).get(key) for key in ("postStart", "preStop")]
        for handler in (each for each in [*probes, *hooks] if each):
            for key in ("httpGet", "tcpSocket"):
                if host := (handler.get(key) or {}).get("host"):
                    yield host

    bad = sorted({each["name"] for each in containers(spec) if any(hosts(each))})
    named = sorted({host for each in containers(spec) for host in hosts(each)})
    verb = "uses" if len(bad) == 1 else "use"
    what = f"{_plural('probe or lifecycle host', named)} {_quoted(named)}"
    return ("probe or lifecycle host", f"{_named(bad)} {verb} {what}") if bad else None


def _privileged(meta: Object, spec: Object) -> Found:
    bad = _where(spec, lambda context: bool(context.get("privileged")))
    return ("privileged", f"{_named(bad)} must not set securityContext.privileged=true") if bad else None


def _proc_mount(meta: Object, spec: Object) -> Found:
    def wrong(context: Object) -> bool:
        return context.get("procMount") not in (None, "Default")

    bad = _where(spec, wrong)
    kinds = sorted({_security(each)["procMount"] for each in containers(spec) if wrong(_security(each))})
    return ("procMount", f"{_named(bad)} must not set securityContext.procMount to {_quoted(kinds)}") if bad else None


def _volumes(meta: Object, spec: Object) -> Found:
    bad, kinds = [], set()
    for volume in spec.get("volumes") or ():
        sources = {key for key, value in volume.items() if key != "name" and value is not None}
        if not sources & _VOLUMES:
            bad.append(volume["name"])
            kinds.add(min(sources, default="unknown"))
    verb = "uses" if len(bad) == 1 else "use"
    what = f"{_plural('restricted volume type', kinds)} {_quoted(sorted(kinds))}"
    return ("restricted volume types", f"{_plural('volume', bad)} {_quoted(bad)} {verb} {what}") if bad else None


def _non_root(meta: Object, spec: Object) -> Found:
    stated = _security(spec).get("runAsNonRoot")
    bad = _where(spec, lambda context: context.get("runAsNonRoot") is False)
    if who := _setters(pod=stated is False, bad=bad):
        return "runAsNonRoot != true", f"{who} must not set securityContext.runAsNonRoot=false"
    silent = [] if stated else _where(spec, lambda context: context.get("runAsNonRoot") is None)
    text = f"pod or {_named(silent)} must set securityContext.runAsNonRoot=true"
    return ("runAsNonRoot != true", text) if silent else None


def _run_as_user(meta: Object, spec: Object) -> Found:
    bad = _where(spec, lambda context: context.get("runAsUser") == 0)
    who = _setters(pod=_security(spec).get("runAsUser") == 0, bad=bad)
    return ("runAsUser=0", f"{who} must not set runAsUser=0") if who else None


def _selinux(allowed: Collection[str]) -> Checked:
    def check(meta: Object, spec: Object) -> Found:
        def wrong(context: Object) -> bool:
            options = context.get("seLinuxOptions")
            if options is None:
                return False
            return bool(options.get("type", "") not in allowed or options.get("user") or options.get("role"))

        bad = _where(spec, wrong)
        who = _setters(pod=wrong(_security(spec)), bad=bad)
        given = [_security(each).get("seLinuxOptions") or {} for each in [spec, *containers(spec)]]
        types = sorted({options.get("type", "") for options in given} - set(allowed))
        data = [f"{_plural('type', types)} {_quoted(types)}"] if types else []
        data += [f"{key} may not be set" for key in ("user", "role") if any(options.get(key) for options in given)]
        text = f"{who} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}"
        return ("seLinuxOptions", text) if who else None

    return check


def _seccomp_annotations(meta: Object, spec: Object) -> Found:
    keys = [_SECCOMP_POD, *(f"{_SECCOMP_CONTAINER}{each['name']}" for each in containers(spec))]
    given = meta.get("annotations") or {}
    bad = sorted(
        {
            f'{key}="{given[key]}"'
            for key in keys
            if key in given
            and given[key] not in ("runtime/default", "docker/default")
            and not given[key].startswith("localhost/")
        }
    )
    return ("seccompProfile", f"forbidden {_plural('annotation', bad)} {', '.join(bad)}") if bad else None


def _seccomp_kind(context: Object) -> str | None:
    """The type that is set and forbidden."""
    profile = context.get("seccompProfile")
    return (
        None if profile is None or profile.get("type") in ("RuntimeDefault", "Localhost") else profile.get("type", "")
    )


def _seccomp(meta: Object, spec: Object) -> Found:
    bad = _where(spec, lambda context: _seccomp_kind(context) is not None)
    who = _setters(pod=_seccomp_kind(_security(spec)) is not None, bad=bad)
    found = map(_seccomp_kind, map(_security, [spec, *containers(spec)]))
    values = sorted({kind for kind in found if kind is not None})
    text = f"{who} must not set securityContext.seccompProfile.type to {_quoted(values)}"
    return ("seccompProfile", text) if who else None


def _seccomp_restricted(meta: Object, spec: Object) -> Found:
    if found := _seccomp(meta, spec):
        return found
    stated = _security(spec).get("seccompProfile") is not None
    silent = [] if stated else _where(spec, lambda context: context.get("seccompProfile") is None)
    text = f'pod or {_named(silent)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return ("seccompProfile", text) if silent else None


def _sysctls(allowed: Collection[str]) -> Checked:
    def check(meta: Object, spec: Object) -> Found:
        bad = [each["name"] for each in _security(spec).get("sysctls") or () if each["name"] not in allowed]
        return ("forbidden sysctls", ", ".join(bad)) if bad else None

    return check


def _host_process(meta: Object, spec: Object) -> Found:
    def wrong(context: Object) -> bool:
        return bool((context.get("windowsOptions") or {}).get("hostProcess"))

    who = _setters(pod=wrong(_security(spec)), bad=_where(spec, wrong))
    return ("hostProcess", f"{who} must not set securityContext.windowsOptions.hostProcess=true") if who else None


ALL = (
    Check("appArmorProfile", False, {0: _apparmor}),
    Check("capabilities_baseline", False, {0: _capabilities}),
    Check("hostNamespaces", False, {0: _host_namespaces}),
    Check("hostPathVolumes", False, {0: _host_paths}),
    Check("hostPorts", False, {0: _host_ports}),
    Check("hostProbesAndHostLifecycle", False, {34: _probe_hosts}),
    Check("privileged", False, {0: _privileged}),
    Check("procMount", False, {0: _proc_mount, 35: _unless_user_namespace(_proc_mount)}),
    Check("seLinuxOptions", False, {0: _selinux(_SELINUX_0), 31: _selinux(_SELINUX_31)}),
    Check("seccompProfile_baseline", False, {0: _seccomp_annotations, 19: _seccomp}),
    Check(
        "sysctls",
        False,
        {
            0: _sysctls(_SYSCTLS_0),
            27: _sysctls(_SYSCTLS_27),
            29: _sysctls(_SYSCTLS_29),
            32: _sysctls(_SYSCTLS_32),
        },
    ),
    Check("windowsHostProcess", False, {0: _host_process}),
    Check("allowPrivilegeEscalation", True, {8: _escalation, 25: _unless_windows(_escalation)}),
    Check(
        "capabilities_restricted",
        True,
        {22: _capabilities_restricted, 25: _unless_windows(_capabilities_restricted)},
        "capabilities_baseline",
    ),
    Check("procMount_restricted", True, {35: _proc_mount}, "procMount"),
    Check("restrictedVolumes", True, {0: _volumes}, "hostPathVolumes"),
    Check("runAsNonRoot", True, {0: _non_root, 35: _unless_user_namespace(_non_root)}),
    Check("runAsUser", True, {23: _run_as_user, 35: _unless_user_namespace(_run_as_user)}),
    Check(
        "seccompProfile_restricted",
        True,
        {19: _seccomp_restricted, 25: _unless_windows(_seccomp_restricted)},
        "seccompProfile_baseline",
    ),
)
