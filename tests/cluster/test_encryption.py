"""EncryptionConfiguration files: which rule a resource falls under, and what is refused, in the original's words."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from steersman.cluster import encryption
from steersman.cluster.process import StartFailure
from steersman.cluster.sealing import Sealing
from steersman.lib.clock import SystemClock
from steersman.lib.tasks import Tasks
from steersman.store.memory import MemoryStore
from steersman.store.sealed import SealedStore

CLOCK = SystemClock()
FLAG = "encryption-provider-config"
HEAD = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n"
GOOD = base64.b64encode(bytes(32)).decode()
KEYS = f"keys: [{{name: one, secret: {GOOD}}}]"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "encryption.yaml"
    path.write_text(text)
    return path


def rule(resources: str, provider: str) -> str:
    return f"- {{resources: [{resources}], providers: [{provider}]}}\n"


async def test_nothing_is_sealed_without_the_flag() -> None:
    async with Tasks() as tasks:
        assert await Sealing.begin({}, CLOCK, tasks) is None
        with pytest.raises(StartFailure, match="automatic-reload must be set with --encryption-provider-config"):
            await Sealing.begin({f"{FLAG}-automatic-reload": "true"}, CLOCK, tasks)


async def test_resources_and_wildcards(tmp_path: Path) -> None:
    text = f"{HEAD}resources:\n" + (
        rule("secrets", f"{{aescbc: {{{KEYS}}}}}, {{identity: {{}}}}")
        + rule("'*.apps'", f"{{aesgcm: {{{KEYS}}}}}")
        + rule("configmaps", "{identity: {}}")
        + rule("'*.*'", f"{{secretbox: {{{KEYS}}}}}")
    )
    inner = MemoryStore()
    store = SealedStore(inner, encryption.by_key(encryption.read(written(tmp_path, text), CLOCK).transformers))
    expected = {
        "/core/secrets/default/a": b"k8s:enc:aescbc:v1:one:",
        "/apps/deployments/default/a": b"k8s:enc:aesgcm:v1:one:",
        "/core/configmaps/default/a": b"{}",
        "/core/pods/default/a": b"k8s:enc:secretbox:v1:one:",
        "/example.com/things/a": b"k8s:enc:secretbox:v1:one:",
    }
    for key, prefix in expected.items():
        await store.create(key, b"{}")
        stored, read = await inner.get(key), await store.get(key)
        assert stored is not None and stored.value.startswith(prefix)
        assert read is not None and read.value == b"{}"


def test_several_rules_for_one_resource_add_up(tmp_path: Path) -> None:
    text = f"{HEAD}resources:\n" + rule("secrets", f"{{aesgcm: {{{KEYS}}}}}") + rule("secrets", "{identity: {}}")
    found = encryption.read(written(tmp_path, text), CLOCK).transformers["", "secrets"]
    assert found.open(b"in clear", b"") == (b"in clear", True)


V2 = "{kms: {apiVersion: v2, name: a, endpoint: 'unix:///x'}}"


def plugin(content: str) -> str:
    return f"{HEAD}resources:\n{rule('secrets', f'{{kms: {{{content}}}}}')}"


def keys(provider: str, content: str) -> str:
    return f"{HEAD}resources:\n" + rule("secrets", f"{{{provider}: {{keys: [{content}]}}}}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", " is empty"),
        ("{}", "Object 'Kind' is missing"),
        ("[1]", "Object 'Kind' is missing"),
        ("a: [\x00", "cannot be read"),
        ("- " * 5000, "cannot be read"),
        ("kind: Pod\napiVersion: v1", 'no kind "Pod" is registered for version "v1"'),
        (HEAD, "resources: Required value: at least one resources is required"),
        (f"{HEAD}resources: 7", "Expected `array | null`, got `int`"),
        (f"{HEAD}resource: []", 'strict decoding error: unknown field "resource"'),
        (f"{HEAD}resources: [{{a: 1}}]", 'strict decoding error: unknown field "resources[0].a"'),
        (
            f"{HEAD}resources: [{{}}]",
            "[resources[0].resources: Required value: at least one resources[0].resources is required, "
            "resources[0].providers: Required value: at least one resources[0].providers is required]",
        ),
        (f"{HEAD}resources:\n{rule('secrets', '{}')}", "provider does not contain any of the expected providers"),
        (
            f"{HEAD}resources:\n{rule('secrets', f'{{identity: {{}}, aescbc: {{{KEYS}}}}}')}",
            "more than one provider specified in a single element, should split into different list elements",
        ),
        (f"{HEAD}resources:\n{rule('Secrets', '{identity: {}}')}", '"Secrets": resource name should not contain'),
        (f"""{HEAD}resources:\n{rule("'*'", "{identity: {}}")}""", "use '*.' to encrypt all the resources from core"),
        (f"{HEAD}resources:\n{rule('events.events.k8s.io', '{identity: {}}')}", "Use 'events' instead in the config"),
        (f"{HEAD}resources:\n{rule('a.extensions', '{identity: {}}')}", "'extensions' group has been removed"),
        (f"""{HEAD}resources:\n{rule("'a.*'", "{identity: {}}")}""", "encrypting the same resource across groups"),
        (f"{HEAD}resources:\n{rule('serviceipallocations', '{identity: {}}')}", "do not have REST API/s cannot"),
        (
            f"{HEAD}resources:\n{rule('secrets, secrets', '{identity: {}}')}",
            'resources[0].resources: Invalid value: ["secrets","secrets"]: the same resource cannot be specified',
        ),
        (f"""{HEAD}resources:\n{rule("secrets, '*.'", "{identity: {}}")}""", "using overlapping resources such as"),
        (
            f"{HEAD}resources:\n" + rule("'*.'", "{identity: {}}") + rule("secrets", "{identity: {}}"),
            'error while building transformers: resource "secrets" is masked by earlier rule "*."',
        ),
        (
            f"{HEAD}resources:\n" + rule("'*.*'", "{identity: {}}") + rule("a.b", "{identity: {}}"),
            'resource "a.b" is masked by earlier rule "*.*"',
        ),
        (keys("aescbc", ""), "resources[0].providers[0].aescbc.keys: Required value: at least one keys is required"),
        (keys("aescbc", f"{{secret: {GOOD}}}"), "aescbc.keys[0].name: Required value: name is a mandatory field for a"),
        (keys("aesgcm", "{name: a}"), "aesgcm.keys[0].secret: Required value: secret is a mandatory field for a key"),
        (
            keys("secretbox", "{name: a, secret: c2VjcmV0IG1pbmU=}"),
            'Invalid value: "REDACTED": secret is not of the expected length, got 11, expected one of [32]',
        ),
        (keys("aescbc", "{name: a, secret: hunter2}"), '"REDACTED": secrets must be base64 encoded'),
        (keys("aesgcm", "{name: a, secret: c2VjcmV0IG1pbmU=}"), "got 11, expected one of [16 24 32]"),
        (plugin("name: a, endpoint: 'unix:///x'"), "KMSv1 is deprecated and will only receive security updates going"),
        (plugin("apiVersion: v2"), "providers[0].kms.name: Required value: name is a mandatory field for a provider"),
        (plugin("apiVersion: v2, name: a"), 'kms.endpoint: Invalid value: "": endpoint is a mandatory field for a kms'),
        (plugin("apiVersion: v2, name: 'a:b', endpoint: 'unix:///x'"), "invalid KMS provider name a:b, must not"),
        (plugin("apiVersion: v2, name: a, endpoint: 'tcp://x'"), 'unsupported scheme "tcp" for KMS provider, only'),
        (plugin("apiVersion: v2, name: a, endpoint: 'unix://[x'"), "invalid endpoint for kms provider, error: "),
        (plugin("apiVersion: v2, name: a, endpoint: 'unix:///x', cachesize: 5"), "cachesize is not supported in v2"),
        (plugin("name: a, endpoint: 'unix:///x', cachesize: 0"), "cachesize should be a positive value, or negative"),
        (plugin("apiVersion: v2, name: a, endpoint: 'unix:///x', timeout: 0s"), "timeout should be a positive value"),
        (plugin("apiVersion: v2, name: a, endpoint: 'unix:///x', timeout: '5'"), "time: missing unit in duration"),
        (plugin("apiVersion: v3, name: a, endpoint: 'unix:///x'"), "for KMS provider, only v1 and v2 are supported"),
        (
            plugin("apiVersion: v2, name: a, keys: []"),
            'strict decoding error: unknown field "resources[0].providers[0]',
        ),
        (
            f"{HEAD}resources:\n{rule('secrets', ', '.join([V2] * 2))}",
            'providers[1].kms.name: Invalid value: "a": duplicate KMS provider name a, names must be unique',
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(StartFailure) as failure:
        encryption.read(written(tmp_path, text), CLOCK)
    assert said in str(failure.value)
    assert "hunter2" not in str(failure.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StartFailure, match=r"error reading encryption provider configuration file .*no such file"):
        encryption.read(tmp_path / "none", CLOCK)
