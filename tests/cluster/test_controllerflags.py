"""Flags of kube-controller-manager: their values, and the sentences that refuse the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.cluster import controllerfiles
from steersman.cluster.controllerflags import FLAGS, MEANINGLESS, seconds, value, values
from steersman.cluster.profile import ProfileError, check_extra_config


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("concurrent-job-syncs", "7", "7"),
        ("concurrent-job-syncs", "0x10", "16"),
        ("concurrent-job-syncs", "010", "8"),
        ("terminated-pod-gc-threshold", "-1", "-1"),
        ("pvclaimbinder-sync-period", "1h5m0.5s", "3900.5"),
        ("pvclaimbinder-sync-period", "0", "0.0"),
        ("pvclaimbinder-sync-period", "-5s", "-5.0"),
        ("kube-api-qps", "1e3", "1000.0"),
        ("leader-elect", "T", "true"),
        ("leader-elect", "0", "false"),
        ("cluster-name", "any thing", "any thing"),
    ],
)
def test_values(name: str, text: str, expected: str) -> None:
    assert value(name, text) == expected


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("concurrent-job-syncs", "x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("concurrent-job-syncs", "", 'strconv.ParseInt: parsing "": invalid syntax'),
        ("concurrent-job-syncs", "1.5", 'strconv.ParseInt: parsing "1.5": invalid syntax'),
        ("concurrent-job-syncs", "99999999999", 'strconv.ParseInt: parsing "99999999999": value out of range'),
        ("concurrent-job-syncs", "9" * 5000, f'strconv.ParseInt: parsing "{"9" * 5000}": value out of range'),
        ("pvclaimbinder-sync-period", "5", 'time: missing unit in duration "5"'),
        ("pvclaimbinder-sync-period", "x", 'time: invalid duration "x"'),
        ("pvclaimbinder-sync-period", "", 'time: invalid duration ""'),
        ("pvclaimbinder-sync-period", "1d", 'time: unknown unit "d" in duration "1d"'),
        ("pvclaimbinder-sync-period", "1h1.5.3m", 'time: missing unit in duration "1h1.5.3m"'),
        ("pvclaimbinder-sync-period", "9999999h", 'time: invalid duration "9999999h"'),
        ("kube-api-qps", "x", 'strconv.ParseFloat: parsing "x": invalid syntax'),
        ("kube-api-qps", "1e99", 'strconv.ParseFloat: parsing "1e99": value out of range'),
        ("leader-elect", "maybe", 'strconv.ParseBool: parsing "maybe": invalid syntax'),
    ],
)
def test_what_is_no_value(name: str, text: str, why: str) -> None:
    with pytest.raises(ProfileError) as refused:
        check_extra_config(f"controller-manager.{name}={text}")
    assert (
        str(refused.value) == f'invalid value for --extra-config: invalid argument "{text}" for "--{name}" flag: {why}'
    )


@given(st.text(max_size=20))
def test_no_text_is_more_than_refused(text: str) -> None:
    for name in ("concurrent-job-syncs", "pvclaimbinder-sync-period", "kube-api-qps", "leader-elect"):
        try:
            value(name, text)
        except ValueError as error:
            assert str(error).startswith("invalid argument ")


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"concurrent-job-syncs": "0"}, "concurrent-job-syncs must be greater than 0, but got 0"),
        ({"max-endpoints-per-slice": "0"}, "max-endpoints-per-slice must not be less than 1, but got 0"),
        (
            {"mirroring-max-endpoints-per-subset": "5000"},
            "mirroring-max-endpoints-per-subset must not be more than 1000, but got 5000",
        ),
        (
            {"attach-detach-reconcile-sync-period": "10ms"},
            "duration time must be greater than one second as set via command line option reconcile-sync-loop-period",
        ),
        ({"leader-elect-resource-lock": "endpoints"}, 'resourceLock value must be "leases"'),
        (
            {"cidr-allocator-type": "CloudAllocator"},
            "built-in cloud providers are disabled. The ipam CloudAllocator is not available",
        ),
        (
            {"service-cluster-ip-range": "10.0.0.0/8,fd00::/64,fd01::/64"},
            "--service-cluster-ip-range can not contain more than two entries",
        ),
        (
            {
                "cluster-signing-cert-file": "/x",
                "cluster-signing-key-file": "/y",
                "cluster-signing-kubelet-client-cert-file": "/z",
            },
            '["cluster-signing-kube-apiserver-client": cannot specify cert without key, cannot specify '
            "--cluster-signing-{cert,key}-file and other --cluster-signing-*-file flags at the same time]",
        ),
        ({"leader-elect-lease-duration": "5s"}, "leaseDuration must be greater than renewDeadline"),
        ({"leader-elect-retry-period": "9s"}, "renewDeadline must be greater than retryPeriod*JitterFactor"),
        ({"concurrent-device-taint-eviction-syncs": "0"}, ".* must be greater than zero, got 0"),
        ({"concurrent-deployment-syncs": "0"}, "concurrent-deployment-syncs must be greater than 0, but got 0"),
    ],
)
def test_values_that_cannot_be(flags: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        values(flags)
    assert str(refused.value).endswith(why.removeprefix(".*"))


def test_values_that_can_be_together() -> None:
    found = values({"leader-elect-lease-duration": "5s", "leader-elect-renew-deadline": "3s", "leader-elect": "true"})
    assert found["leader-elect-lease-duration"] == "5.0"
    assert values({name: "1s" for name in FLAGS if name.endswith("batch-period")})
    assert values({"leader-elect": "false", "leader-elect-lease-duration": "1s"})


@pytest.mark.parametrize("name", sorted(MEANINGLESS))
def test_flags_without_a_meaning_say_why(name: str) -> None:
    with pytest.raises(ProfileError, match=f"--{name} means nothing here: {MEANINGLESS[name]}"):
        check_extra_config(f"controller-manager.{name}=1")


def test_durations_are_seconds() -> None:
    assert [seconds(text) for text in ("5m0s", "1.5h", "100ms", "+2s", ".5s", "3us")] == [300, 5400, 0.1, 2, 0.5, 3e-6]


def test_files(tmp_path: Path) -> None:
    pem, pod = tmp_path / "ca.crt", tmp_path / "pod.yaml"
    pem.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    pod.write_text("{kind: Pod, spec: {volumes: [{name: a}]}}")
    found = controllerfiles.read(
        {
            "root-ca-file": str(pem),
            "cluster-signing-kubelet-client-cert-file": str(pem),
            "pv-recycler-pod-template-filepath-nfs": str(pod),
        }
    )
    assert found["root-ca"] == found["signing-cert kube-apiserver-client-kubelet"] == pem.read_text()
    assert json.loads(found["pv-recycler-pod-template-nfs"])["spec"]["volumes"] == [{"name": "a"}]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no such file or directory"),
        ("{", "is neither YAML nor JSON"),
        ("kind: Deployment", "holds no Pod"),
        ("{kind: Pod, spec: {volumes: []}}", "does not contain any volume"),
        ("{kind: Pod, spec: {volumes: [x]}}", "does not contain any volume"),
        ("{kind: Pod, spec: {volumes: [{name: a}], x: 2026-01-01}}", "is no JSON"),
        ("[" * 100000, "is neither YAML nor JSON"),
    ],
)
def test_what_is_no_scrubbing_pod(tmp_path: Path, content: str | None, why: str) -> None:
    path = tmp_path / "pod.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=why):
        controllerfiles.read({"pv-recycler-pod-template-filepath-hostpath": str(path)})


def test_what_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match="it is no text"):
        controllerfiles.read({"service-account-private-key-file": str(tmp_path / "key")})
    (tmp_path / "key").write_text("key")
    with pytest.raises(ValueError, match="valid certificates or keys in PEM"):
        controllerfiles.read({"root-ca-file": str(tmp_path / "key")})
