"""The flags of kube-controller-manager: which there are, what their values may be, and those that mean nothing here.

Pure. Called by `profile` for `--extra-config=controller-manager.FLAG=VALUE`, before anything starts, and by `control`
for the values. Source: `kube-controller-manager --help` of 1.36; what refuses a value are Go's words and the
original's, for people search for them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_DURATIONS = """
    attach-detach-reconcile-sync-period cluster-signing-duration controller-start-interval
    endpoint-updates-batch-period endpointslice-updates-batch-period
    horizontal-pod-autoscaler-cpu-initialization-period horizontal-pod-autoscaler-downscale-stabilization
    horizontal-pod-autoscaler-initial-readiness-delay horizontal-pod-autoscaler-sync-period
    leader-elect-lease-duration leader-elect-renew-deadline leader-elect-retry-period
    legacy-service-account-token-clean-up-period mirroring-endpointslice-updates-batch-period namespace-sync-period
    node-monitor-grace-period node-monitor-period node-startup-grace-period node-status-update-frequency
    pvclaimbinder-sync-period resource-quota-sync-period route-reconciliation-period
"""
_NUMBERS = """
    concurrent-cron-job-syncs concurrent-daemonset-syncs concurrent-deployment-syncs
    concurrent-device-taint-eviction-syncs concurrent-endpoint-syncs concurrent-ephemeralvolume-syncs
    concurrent-gc-syncs concurrent-horizontal-pod-autoscaler-syncs concurrent-job-syncs concurrent-namespace-syncs
    concurrent-rc-syncs concurrent-replicaset-syncs concurrent-resource-quota-syncs concurrent-resourceclaim-syncs
    concurrent-service-endpoint-syncs concurrent-service-syncs concurrent-serviceaccount-token-syncs
    concurrent-statefulset-syncs concurrent-ttl-after-finished-syncs
    concurrent-validating-admission-policy-status-syncs kube-api-burst large-cluster-size-threshold
    max-endpoints-per-slice mirroring-concurrent-service-endpoint-syncs mirroring-max-endpoints-per-subset
    node-cidr-mask-size node-cidr-mask-size-ipv4 node-cidr-mask-size-ipv6 pv-recycler-increment-timeout-nfs
    pv-recycler-minimum-timeout-hostpath pv-recycler-minimum-timeout-nfs pv-recycler-timeout-increment-hostpath
    secure-port terminated-pod-gc-threshold
"""
_FRACTIONS = """
    horizontal-pod-autoscaler-tolerance kube-api-qps node-eviction-rate secondary-node-eviction-rate
    unhealthy-zone-threshold
"""
_SWITCHES = """
    allocate-node-cidrs configure-cloud-routes disable-attach-detach-reconcile-sync disable-force-detach-on-timeout
    enable-dynamic-provisioning enable-garbage-collector enable-hostpath-provisioner leader-elect
    use-service-account-credentials
"""
_TEXTS = """
    cidr-allocator-type cloud-config cloud-provider cluster-cidr cluster-name controllers
    cluster-signing-cert-file cluster-signing-key-file
    cluster-signing-kube-apiserver-client-cert-file cluster-signing-kube-apiserver-client-key-file
    cluster-signing-kubelet-client-cert-file cluster-signing-kubelet-client-key-file
    cluster-signing-kubelet-serving-cert-file cluster-signing-kubelet-serving-key-file
    cluster-signing-legacy-unknown-cert-file cluster-signing-legacy-unknown-key-file
    leader-elect-resource-lock leader-elect-resource-name leader-elect-resource-namespace
    pv-recycler-pod-template-filepath-hostpath pv-recycler-pod-template-filepath-nfs root-ca-file
    service-account-private-key-file service-cluster-ip-range
"""
MEANINGLESS: Mapping[str, str] = {
    "concurrent-node-status-updates": "no controller writes the status of many nodes",
    "controller-shutdown-timeout": "controllers end at once when they are stopped",
    "emulated-version": "the release that a cluster serves is chosen with --kubernetes-version",
    "enable-leader-migration": "all controllers are in one process, under one Lease",
    "external-cloud-volume-plugin": "no volume plugin of a cloud is in the tree any more, every one is a CSI driver",
    "feature-gates": "gates are as the release has them",
    "flex-volume-plugin-dir": "FlexVolume is absent",
    "kube-api-content-type": "controllers speak JSON to their API server",
    "kubeconfig": "controllers have the credentials of their cluster",
    "leader-migration-config": "all controllers are in one process, under one Lease",
    "master": "controllers talk to the API server of their cluster",
    "min-compatibility-version": "the release that a cluster serves is chosen with --kubernetes-version",
    "min-resync-period": "caches are never told again what they know",
}
"""Flags of the original that are refused, and why."""

_FEW = {
    "concurrent-device-taint-eviction-syncs": "{name} must be greater than zero, got {number}",
    "concurrent-resourceclaim-syncs": "{name} must be larger than 0, got {number}",
    "concurrent-validating-admission-policy-status-syncs": "must be positive, got {number}",
}
"""What the original says of some numbers below one."""
_SPANS = {
    "concurrent-service-endpoint-syncs": (1, 50),
    "max-endpoints-per-slice": (1, 1000),
    "mirroring-concurrent-service-endpoint-syncs": (1, 50),
    "mirroring-max-endpoints-per-subset": (1, 1000),
}
SIGNERS = {
    "kubelet-serving": "kubelet-serving",
    "kubelet-client": "kube-apiserver-client",
    "kube-apiserver-client": "kube-apiserver",
    "legacy-unknown": "legacy-unknown",
}
"""Signers that have flags of their own: as the flags call them, and as a complaint does."""

_KINDS: Mapping[str, str] = {
    name: kind
    for kind, names in (
        ("duration", _DURATIONS),
        ("number", _NUMBERS),
        ("fraction", _FRACTIONS),
        ("switch", _SWITCHES),
        ("text", _TEXTS),
    )
    for name in names.split()
}
FLAGS = frozenset(_KINDS)
"""Every flag that can be given."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TRUE, FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


def value(name: str, text: str) -> str:
    """One flag's value as controllers read it: seconds for durations, `true` and `false`, plain decimals.

    Raises ValueError in the original's words.
    """
    kind = _KINDS[name]
    try:
        if kind == "duration":
            return repr(seconds(text))
        if kind == "number":
            return str(_int32(text))
        if kind == "fraction":
            return repr(_float(text))
        if kind == "switch":
            return _bool(text)
    except ValueError as error:
        raise ValueError(f'invalid argument "{text}" for "--{name}" flag: {error}') from None
    return text


def seconds(text: str) -> float:
    """A duration such as 1h5m0.5s, as Go parses it. Raises ValueError in its words."""
    rest, sign, total = text, 1.0, 0.0
    if rest[:1] in ("-", "+"):
        sign, rest = (-1.0 if rest[0] == "-" else 1.0), rest[1:]
    if rest == "0":
        return 0.0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    while rest:
        found = re.match(r"([0-9]*)(\.[0-9]*)?", rest, re.ASCII)
        assert found is not None
        number = found.group()
        if not re.search("[0-9]", number):
            raise ValueError(f'time: invalid duration "{text}"')
        rest = rest[len(number) :]
        unit = re.match(r"[^.0-9]*", rest)
        assert unit is not None
        if not unit.group():
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit.group() not in _UNITS:
            raise ValueError(f'time: unknown unit "{unit.group()}" in duration "{text}"')
        rest = rest[len(unit.group()) :]
        total += float(number if number[:1] != "." else f"0{number}") * _UNITS[unit.group()]
    if total >= 2**63 / 1e9:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * total


def _int32(text: str) -> int:
    what = f'strconv.ParseInt: parsing "{text}": '
    if not re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]*|[1-9][0-9]*)", text, re.ASCII):
        raise ValueError(what + "invalid syntax")
    digits = text.lstrip("+-").lower()
    base = {"0x": 16, "0b": 2, "0o": 8}.get(digits[:2], 8 if digits.startswith("0") and len(digits) > 1 else 10)
    if len(digits) > 64:
        raise ValueError(what + "value out of range")
    found = int(digits.removeprefix("0o") if base == 8 else digits, base) * (-1 if text.startswith("-") else 1)
    if not -(2**31) <= found < 2**31:
        raise ValueError(what + "value out of range")
    return found


def _float(text: str) -> float:
    what = f'strconv.ParseFloat: parsing "{text}": '
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?", text, re.ASCII):
        raise ValueError(what + "invalid syntax")
    found = float(text)
    if math.isinf(found) or abs(found) > 3.4028235677973366e38:
        raise ValueError(what + "value out of range")
    return found


def _bool(text: str) -> str:
    if text in _TRUE:
        return "true"
    if text in FALSE:
        return "false"
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def values(given: Mapping[str, str]) -> dict[str, str]:
    """All flags' values, checked each and together. Raises ValueError in the original's words."""
    for name in given:
        if name in MEANINGLESS:
            raise ValueError(f"--{name} means nothing here: {MEANINGLESS[name]}")
    found = {name: value(name, text) for name, text in given.items()}
    if wrong := [*_wrong(found)]:
        raise ValueError(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
    return found


def _wrong(found: Mapping[str, str]) -> list[str]:
    """What the original's own checks say. Some numbers below one it takes, and then nothing is done: not here."""
    out: list[str] = []
    if found.get("leader-elect", "true") == "true" and found.get("leader-elect-resource-lock", "leases") != "leases":
        out.append('resourceLock value must be "leases"')
    if float(found.get("attach-detach-reconcile-sync-period", "60")) < 1:
        flag = "reconcile-sync-loop-period"
        out.append(f"duration time must be greater than one second as set via command line option {flag}")
    out += _signing(found)
    for name, number in found.items():
        if name.startswith("concurrent-") and name not in _SPANS and int(number) < 1:
            out.append(
                _FEW.get(name, "{name} must be greater than 0, but got {number}").format(name=name, number=number)
            )
    for name, (least, most) in _SPANS.items():
        count = int(found.get(name, str(least)))
        if count < least:
            out.append(f"{name} must not be less than {least}, but got {count}")
        elif count > most:
            out.append(f"{name} must not be more than {most}, but got {count}")
    if found.get("service-cluster-ip-range", "").count(",") > 1:
        out.append("--service-cluster-ip-range can not contain more than two entries")
    if (kind := found.get("cidr-allocator-type", "RangeAllocator")) not in ("", "RangeAllocator"):
        out.append(f"built-in cloud providers are disabled. The ipam {kind} is not available")
    if found.get("enable-hostpath-provisioner") == "true":
        out.append("--enable-hostpath-provisioner means nothing here: the class standard makes directories")
    return out + _terms(found)


def _signing(found: Mapping[str, str]) -> list[str]:
    out, own = [], False
    for flag, label in SIGNERS.items():
        cert, key = (found.get(f"cluster-signing-{flag}-{part}-file", "") for part in ("cert", "key"))
        own |= bool(cert or key)
        if bool(cert) != bool(key):
            what = "key without cert" if key else "cert without key"
            out.append(f'"cluster-signing-{label}": cannot specify {what}')
    if own and (found.get("cluster-signing-cert-file") or found.get("cluster-signing-key-file")):
        flags = "--cluster-signing-{cert,key}-file and other --cluster-signing-*-file flags"
        out.append(f"cannot specify {flags} at the same time")
    return out


def _terms(found: Mapping[str, str]) -> list[str]:
    """Terms of an election under which two could lead: the original fails a moment later, with these words."""
    if found.get("leader-elect") == "false":
        return []
    lease, renew, retry = (
        float(found.get(f"leader-elect-{name}", default))
        for name, default in (("lease-duration", "15"), ("renew-deadline", "10"), ("retry-period", "2"))
    )
    if lease <= renew:
        return ["leaseDuration must be greater than renewDeadline"]
    if renew <= 1.2 * retry:
        return ["renewDeadline must be greater than retryPeriod*JitterFactor"]
    if retry < 1e-9:
        return ["retryPeriod must be greater than zero"]
    return []
