"""The user's kubeconfig: our entries come and go, everything else stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from steersman.cluster import certs, kubeconfig
from steersman.cluster.kubeconfig import KubeconfigError

OTHER = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "prod", "cluster": {"server": "https://prod"}}],
    "users": [{"name": "me", "user": {"token": "secret"}}],
    "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "me"}}],
    "current-context": "prod",
    "preferences": {"colors": True},
}


@pytest.fixture
def entry(tmp_path: Path) -> dict[str, object]:
    certs.ensure(tmp_path / "pki", [certs.Identity("admin", "kubernetes-admin", ["system:masters"])], 1_800_000_000)
    return kubeconfig.entry("steer", "https://127.0.0.1:6443", tmp_path / "pki", "admin")


def test_merge_and_remove_leave_the_rest(tmp_path: Path, entry: dict[str, object]) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(OTHER))
    kubeconfig.merge(path, entry)
    kubeconfig.merge(path, entry)
    merged = yaml.safe_load(path.read_text())
    assert [item["name"] for item in merged["contexts"]] == ["prod", "steer"]
    assert merged["current-context"] == "steer"
    assert merged["preferences"] == {"colors": True}
    assert kubeconfig.has(path, "steer")
    assert path.stat().st_mode & 0o777 == 0o600
    kubeconfig.remove(path, "steer")
    assert yaml.safe_load(path.read_text()) == OTHER | {"current-context": ""}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config", "pki"]


def test_a_missing_file_is_made(tmp_path: Path, entry: dict[str, object]) -> None:
    kubeconfig.merge(tmp_path / "new" / "config", entry)
    assert yaml.safe_load((tmp_path / "new" / "config").read_text())["current-context"] == "steer"
    kubeconfig.remove(tmp_path / "absent", "steer")
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "clusters: 5", "\t"])
def test_a_broken_file_is_left_as_it_is(tmp_path: Path, entry: dict[str, object], content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(KubeconfigError, match="it was left as it is"):
        kubeconfig.merge(path, entry)
    assert path.read_text() == content


def test_a_symbolic_link_stays_one(tmp_path: Path, entry: dict[str, object]) -> None:
    (tmp_path / "real").write_text("")
    (tmp_path / "config").symlink_to(tmp_path / "real")
    kubeconfig.merge(tmp_path / "config", entry)
    assert (tmp_path / "config").is_symlink()
    assert kubeconfig.has(tmp_path / "real", "steer")


def test_kubeconfig_variable_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", f":{tmp_path}/a:{tmp_path}/b")
    assert kubeconfig.user_file() == tmp_path / "a"
    monkeypatch.setenv("KUBECONFIG", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kubeconfig.user_file() == tmp_path / ".kube" / "config"
