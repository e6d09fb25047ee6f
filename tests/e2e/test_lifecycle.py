"""What a machine keeps of a cluster that was deleted (nothing), and what goes wrong at a start."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Steer
from tests.e2e.machine import traces

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "containers": [
            {
                "name": "web",
                "image": "nginx:1.7.9",
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                "resources": {"limits": {"memory": "64Mi", "cpu": "100m"}},
            }
        ],
        "volumes": [{"name": "scratch", "emptyDir": {"medium": "Memory"}}],
    },
}


def run_pod(steer: Steer) -> None:
    kubectl = steer.kubectl()
    kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=20s")
    kubectl("create", "-f", "-", given=json.dumps(POD))
    kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")


def test_delete_leaves_nothing(make_steer: Callable[[], Steer], registry: str) -> None:
    steer = make_steer()
    before = traces()
    steer("up", "--registry-mirror", f"http://{registry}")
    run_pod(steer)
    steer.kubectl()("expose", "pod", "web", "--port=80", "--type=NodePort")
    during = traces()
    assert during["processes"] - before["processes"]
    assert during["tables"] - before["tables"]
    steer("delete")
    after = traces()
    assert {sort: sorted(after[sort] - before[sort]) for sort in after} == {sort: [] for sort in after}
    assert sorted(path.name for path in (steer.home / "profiles").iterdir()) == []
    assert "steer" not in steer.kubeconfig.read_text()


def test_stop_and_start_keeps_the_state(make_steer: Callable[[], Steer]) -> None:
    steer = make_steer()
    steer("up", "--nodes", "0")
    steer.kubectl()("create", "configmap", "kept", "--from-literal=a=b")
    steer("stop")
    assert "Stopped" in steer.run("status").stdout
    steer("up")
    assert steer.kubectl()("get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "b"
    assert "Running" in steer("status")
    assert "already" not in steer("up")
    steer("delete")


def test_two_profiles_side_by_side(make_steer: Callable[[], Steer]) -> None:
    steer = make_steer()
    steer("up", "--nodes", "0", "-p", "one")
    steer("up", "--nodes", "0", "-p", "two")
    for name in ("one", "two"):
        steer.kubectl()("--context", name, "create", "configmap", f"of-{name}")
    listed = steer.kubectl()("--context", "one", "get", "configmaps", "-o", "name")
    assert "of-one" in listed
    assert "of-two" not in listed
    assert {line.split()[0] for line in steer("profile", "list").splitlines()[1:]} == {"one", "two"}
    steer("delete", "--all")


def test_up_twice_at_once_is_one_cluster(make_steer: Callable[[], Steer]) -> None:
    steer = make_steer()
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "steersman.cli", "up", "--nodes", "0"],
            env=steer.environment, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    results = [(process.communicate(timeout=60)[1], process.returncode) for process in both]
    assert sorted(code for _, code in results)[0] == 0
    refused = [text for text, code in results if code]
    assert all("another steer command is working on profile 'steer'" in text for text in refused)
    steer.kubectl()("get", "namespaces")
    steer("delete")


def test_a_taken_port_is_named(make_steer: Callable[[], Steer]) -> None:
    steer = make_steer()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = steer.run("up", "--nodes", "0", "--apiserver-port", str(port))
    assert done.returncode == 1
    assert f"cannot listen on port {port} for the API server: Address already in use" in done.stderr
    steer("delete")


@pytest.mark.parametrize(
    ("broken", "absent"),
    [("store.db", ""), ("profile.json", ""), ("pki/ca.crt", "pki/admin.crt"), ("pki/ca.crt", "pki/apiserver.crt")],
)
def test_a_corrupt_state_directory_is_named_and_kept(make_steer: Callable[[], Steer], broken: str, absent: str) -> None:
    steer = make_steer()
    steer("up", "--nodes", "0")
    steer("stop")
    path = steer.home / "profiles" / "steer" / broken
    for extra in Path(path.parent).glob("store.db-*"):
        extra.unlink()
    path.write_bytes(b"garbage, and enough of it to be looked at " * 50)
    if absent:
        (steer.home / "profiles" / "steer" / absent).unlink()
    content = path.read_bytes()
    done = steer.run("up")
    assert done.returncode == 1
    assert path.name in done.stderr or "certificates" in done.stderr
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == content
    assert "Running" not in steer.run("status").stdout
    steer("delete")


def test_a_full_disk_is_said(make_steer: Callable[[], Steer]) -> None:
    steer = make_steer()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "full", str(steer.home)], check=True)
    try:
        done = steer.run("up", "--nodes", "0")
        assert done.returncode == 1
        assert "MiB left on its disk" in done.stderr
    finally:
        subprocess.run(["umount", "-l", str(steer.home)], check=True)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["up", "-p", "Bad_Name"], "invalid profile name"),
        (["up", "--nodes", "-1"], "invalid value for --nodes"),
        (["up", "--extra-config", "nonsense"], "not of the form component.key=value"),
        (["up", "--kubernetes-version", "v1.1"], "cannot serve Kubernetes 'v1.1'"),
        (["status", "-p", "nobody"], 'Profile "nobody" not found'),
        (["logs", "-p", "nobody"], 'Profile "nobody" not found'),
    ],
)
def test_bad_flags_have_clear_errors(make_steer: Callable[[], Steer], words: list[str], complaint: str) -> None:
    done = make_steer().run(*words)
    assert done.returncode != 0
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_pods_hear_of_a_stop(make_steer: Callable[[], Steer], registry: str) -> None:
    steer = make_steer()
    steer("up", "--registry-mirror", f"http://{registry}")
    kubectl = steer.kubectl()
    kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=20s")
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "kept"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    script = 'trap "echo ended well >> /kept/log; exit 0" TERM; echo began >> /kept/log; while true; do sleep 0.1; done'
    mounts = [{"name": "kept", "mountPath": "/kept"}]
    main = {"name": "main", "image": "nginx:1.7.9", "command": ["sh", "-c", script], "volumeMounts": mounts}
    volumes = [{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}]
    writer = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "writer"}}
    writer["spec"] = {"containers": [main], "volumes": volumes}
    kubectl("create", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": [claim, writer]}))
    kubectl("wait", "--for=condition=Ready", "pod/writer", "--timeout=60s")
    steer("stop")
    steer("up")
    kubectl("wait", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "pod/writer", "--timeout=60s")
    said = kubectl("exec", "writer", "--", "cat", "/kept/log").split("\n")
    assert said[:3] == ["began", "ended well", "began"]
    steer("delete")
