"""The seccomp filter of a container, in the cheapest form that the OCI runtime takes.

Owns the compiled filters of this process: each variant of the default profile is compiled once. crun takes compiled BPF
as an annotation; runc compiles the profile itself, for every container.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from steersman.engine.interface import RuntimeFailure
from steersman.engine.runtime import libseccomp, seccomp
from steersman.engine.runtime.seccomp import Profile

_ANNOTATION = "run.oci.seccomp_bpf_data"


class Profiles:
    """Filters by name: RuntimeDefault, Unconfined, or the path of a profile in Docker's JSON form."""

    def __init__(self, *, compile_here: bool) -> None:
        """`compile_here`: the OCI runtime takes compiled filters; used when libseccomp can be loaded."""
        self._compile = compile_here and libseccomp.available()
        self._machine = os.uname().machine
        self._compiled: dict[str, str] = {}
        self._lock = threading.Lock()

    def filter(self, name: str, capabilities: Collection[str]) -> tuple[dict[str, Any] | None, dict[str, str]]:
        """`linux.seccomp` and annotations for a container with these capabilities. Raises RuntimeFailure."""
        if name in ("", "Unconfined"):
            return None, {}
        try:
            if name == "RuntimeDefault":
                profile = seccomp.default_profile(capabilities, self._machine)
                key = seccomp.variant(capabilities)
            else:
                profile = seccomp.parse(json.loads(Path(name).read_bytes()), capabilities)
                key = ""
            if not self._compile:
                return seccomp.oci(profile), {}
            return {"defaultAction": "SCMP_ACT_ALLOW"}, {_ANNOTATION: self._bpf(profile, key)}
        except FileNotFoundError:
            raise RuntimeFailure(f"no seccomp profile at {name}") from None
        except (OSError, ValueError) as error:
            raise RuntimeFailure(f"cannot use the seccomp profile {name}: {error}") from error

    def _bpf(self, profile: Profile, key: str) -> str:
        with self._lock:
            if not key or key not in self._compiled:
                text = base64.b64encode(libseccomp.compile_profile(profile)).decode()
                if not key:
                    return text
                self._compiled[key] = text
            return self._compiled[key]
