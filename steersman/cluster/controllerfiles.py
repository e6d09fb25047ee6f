"""Files that flags of kube-controller-manager name: authorities, keys, and pods that scrub volumes.

Owns their reading and what refuses them. Called by `control` once, at the start: they are not read again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

_SIGNERS = {
    "": "",
    "kubelet-serving-": " kubelet-serving",
    "kubelet-client-": " kube-apiserver-client-kubelet",
    "kube-apiserver-client-": " kube-apiserver-client",
    "legacy-unknown-": " legacy-unknown",
}
"""What a flag says of the signer, and what the signer's settings end with."""
_PLAIN = {"root-ca-file": "root-ca", "service-account-private-key-file": "service-account-private-key"}


def read(flags: Mapping[str, str]) -> dict[str, str]:
    """The settings that come from files. Raises ValueError for a file that cannot be what it is to be."""
    out: dict[str, str] = {}
    for flag, name in _PLAIN.items():
        if path := flags.get(flag):
            out[name] = _pem(flag, path)
    for own, suffix in _SIGNERS.items():
        for part in ("cert", "key"):
            flag = f"cluster-signing-{own}{part}-file"
            if path := flags.get(flag):
                out[f"signing-{part}{suffix}"] = _pem(flag, path)
    for kind in ("hostpath", "nfs"):
        if path := flags.get(f"pv-recycler-pod-template-filepath-{kind}"):
            out[f"pv-recycler-pod-template-{kind}"] = _pod(path)
    return out


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"open {path}: {str(why).lower()}") from None


def _pem(flag: str, path: str) -> str:
    text = _text(path)
    if "-----BEGIN " not in text:
        raise ValueError(f"error reading --{flag} {path}: data does not contain any valid certificates or keys in PEM")
    return text


def _pod(path: str) -> str:
    """A pod that empties volumes, as JSON."""
    import yaml

    text = _text(path)
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ValueError(f"failed decoding file: {path} is neither YAML nor JSON") from None
    if not isinstance(found, dict) or found.get("kind") != "Pod" or not isinstance(found.get("spec"), dict):
        raise ValueError(f"failed decoding file: {path} holds no Pod")
    volumes = found["spec"].get("volumes")
    if not isinstance(volumes, list) or not volumes or not isinstance(volumes[0], dict) or "name" not in volumes[0]:
        raise ValueError(f"pod specification ({path}): does not contain any volume(s)")
    try:
        return json.dumps(found)
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"failed decoding file: {path} is no JSON") from None
