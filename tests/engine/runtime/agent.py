"""A process that runs containers and can be killed: `agent.py STATE IMAGES LOGS ACTION...`, for the recovery tests.

Prints a line of JSON after each action: `pod` (a running container), `created` (one not started), `short` (ends by
itself), `wait` (does nothing until killed). `remove` takes away what was made.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from steersman.engine.interface import ContainerConfig, Image, ImageConfig, Mount, SandboxConfig
from steersman.engine.runtime import LocalRuntime
from steersman.lib.clock import SystemClock
from steersman.lib.failpoint import arm_from_environment

LOOP = "n=0; while :; do echo line $n; n=$((n+1)); sleep 0.02; done"
SCRIPTS = {"pod": LOOP, "created": "exit 4", "short": "while ! [ -e /tmp/flag/go ]; do sleep 0.01; done; exit 23"}


class OneImage:
    def __init__(self, base: Path) -> None:
        self._base = base

    def find(self, reference: str) -> Image | None:
        return Image("sha256:0", (reference,), (), 0, ImageConfig())

    def hold(self, owner: str, image: Image) -> list[Path]:
        return [self._base]

    def release(self, owner: str) -> None:
        pass


async def main(state: Path, base: Path, logs: Path, actions: list[str]) -> None:
    runtime = LocalRuntime(
        state, OneImage(base), clock=SystemClock(), pod_cidr="10.199.0.0/24", cgroup_root="steertest"
    )
    await runtime.start()
    for action in actions:
        if action == "wait":
            await asyncio.Event().wait()
        if action == "remove":
            for each in runtime.sandboxes():
                await runtime.remove_sandbox(each.id)
            continue
        config = SandboxConfig(action, "default", f"uid-{action}", hostname=action, log_directory=str(logs / action))
        sandbox = await runtime.run_sandbox(config)
        script = ("sh", "-c", SCRIPTS[action])
        mounts = (Mount("/tmp/flag", str(logs)),)
        main = ContainerConfig("main", "busybox", command=script, log_path="main.log", mounts=mounts)
        container = await runtime.create_container(sandbox.id, main)
        if action != "created":
            await runtime.start_container(container.id)
        found = runtime.container(container.id)
        print(json.dumps([sandbox.id, found.id, found.pid, found.started_at, list(sandbox.ips)]), flush=True)


if __name__ == "__main__":
    arm_from_environment(os.environ.get("STEER_FAILPOINTS", ""))
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]))
