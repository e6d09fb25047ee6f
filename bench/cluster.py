"""A whole cluster as a user starts it: `steer up`, two web servers behind a Service, pods, and what it costs idle.

Images come from a docker-registry on loopback. The floors, measured in the same run: a Python process that loads the
compiled modules of an API server, and crun alone running a container of the same command.
Needs root and what `./steer test` installs. Run: `python -m bench.cluster [pods]`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from steersman.api.resource import PODS, Object
from steersman.client.client import Client
from steersman.client.transport import Credentials, connect
from steersman.cluster.profile import load
from steersman.lib.clock import SystemClock
from tests.e2e.kubectl import binary
from tests.e2e.registry import push_nginx, serving

PROFILE = "bench"
IMAGE = "nginx:1.7.9"
LOAD = "import uvloop, httptools, msgspec, apsw, cryptography.x509, ssl, asyncio"
IDLE_SECONDS = 20.0
WEB = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: web, image: "{IMAGE}"}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: asks}}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  containers:
  - {{name: asks, image: "{IMAGE}", command: [sh, -c, "until wget -qO- http://web/; do sleep 0.05; done"]}}
"""


class Bench:
    """One cluster in a home of its own."""

    def __init__(self, home: Path, mirror: str) -> None:
        self.home = home
        self.mirror = mirror
        self.environment = {**os.environ, "STEER_HOME": str(home), "KUBECONFIG": str(home / "kubeconfig")}

    def steer(self, *words: str) -> Iterator[tuple[float, str]]:
        """Run steer; yield each line it prints with the seconds since it was started."""
        began = time.perf_counter()
        command = [sys.executable, "-m", "steersman.cli", *words, "-p", PROFILE]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment
        ) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                yield time.perf_counter() - began, line
        if process.returncode:
            raise SystemExit(f"steer {' '.join(words)} failed: {''.join(lines)}")

    def up(self, *words: str) -> dict[str, float]:
        """Seconds until each thing was ready, by its name."""
        told = self.steer("up", "--registry-mirror", f"http://{self.mirror}", *words)
        return {line.split(" ready after")[0]: at for at, line in told if " ready after" in line}

    def delete(self) -> None:
        """Delete the cluster."""
        for _ in self.steer("delete"):
            pass

    def kubectl(self, *words: str, given: str = "") -> str:
        """Run kubectl; its output."""
        done = subprocess.run(
            [str(binary("v37")), *words], input=given, capture_output=True, text=True, env=self.environment, check=True
        )
        return done.stdout

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client with the administrator's certificate."""
        profile = load(PROFILE, self.home)
        assert profile is not None
        pki = profile.pki
        server = f"https://127.0.0.1:{profile.api_port}"
        transport = connect(Credentials(server, pki / "ca.crt", pki / "admin.crt", pki / "admin.key"))
        try:
            yield Client(transport, clock=SystemClock(), user_agent="bench")
        finally:
            await transport.close()

    def processes(self) -> list[int]:
        """The cluster's own processes: those that Python runs in its home."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                home = f"STEER_HOME={self.home}".encode() in (folder / "environ").read_bytes().split(b"\0")
                if home and b"steersman" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


def pod(name: str) -> Object:
    """A pod that does nothing, and ends when it is told to."""
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def _ready(found: Object) -> bool:
    conditions = (found.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def start_pods(client: Client, names: set[str]) -> float:
    """Create pods together; seconds until all of them are Running and Ready."""
    version = (await client.list(PODS, "default")).resource_version
    began = time.perf_counter()
    async with aclosing(client.watch(PODS, "default", resource_version=version)) as events:
        await asyncio.gather(*(client.create(PODS, pod(name), "default") for name in names))
        waiting = set(names)
        async for event in events:
            if event.type == "MODIFIED" and _ready(event.object):
                waiting.discard(event.object["metadata"]["name"])
            if not waiting:
                break
    return time.perf_counter() - began


async def remove_pods(client: Client) -> float:
    """Delete all pods; seconds until they are gone."""
    page = await client.list(PODS, "default")
    waiting = {item["metadata"]["name"] for item in page.items}
    began = time.perf_counter()
    async with aclosing(client.watch(PODS, "default", resource_version=page.resource_version)) as events:
        await client.delete_collection(PODS, "default")
        async for event in events:
            if event.type == "DELETED":
                waiting.discard(event.object["metadata"]["name"])
            if not waiting:
                break
    return time.perf_counter() - began


def floor_load() -> float:
    """Seconds that Python takes to start and load the compiled modules."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", LOAD], check=True)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def floor_crun(folder: Path, count: int) -> float:
    """Milliseconds of `crun run` of a static program, in its own namespaces and without cgroups."""
    (folder / "rootfs/bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", folder / "rootfs/bin/true")
    subprocess.run(["crun", "spec"], cwd=folder, check=True)
    config = json.loads((folder / "config.json").read_text())
    config["process"] |= {"args": ["/bin/true"], "terminal": False}
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    (folder / "config.json").write_text(json.dumps(config))
    hide = "umount /sys/fs/cgroup/unified 2>/dev/null"  # crun refuses the hybrid mode
    words, took = "--cgroup-manager=disabled", []
    for number in range(count):
        began = time.perf_counter()
        subprocess.run(
            ["unshare", "--mount", "sh", "-c", f"{hide}; exec crun {words} run bench-{number}"], cwd=folder, check=True
        )
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def _memory(pids: list[int]) -> tuple[float, float]:
    """Resident and proportional MB of some processes."""
    resident = proportional = 0
    for pid in pids:
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:] if ":" in line
        )
        resident += int(fields["Rss"].split()[0])
        proportional += int(fields["Pss"].split()[0])
    return resident * 1024 / 1e6, proportional * 1024 / 1e6


def _cpu(pids: list[int]) -> float:
    """Seconds of CPU that some processes have used."""
    ticks = os.sysconf("SC_CLK_TCK")
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / ticks


async def pods(bench: Bench, count: int, least: float) -> None:
    """Pods one at a time, 30 and 110 at once."""
    async with bench.client() as client:
        took = [await start_pods(client, {f"one-{number}"}) * 1000 for number in range(count)]
        middle, last = statistics.median(took), sorted(took)[min(count - 1, int(count * 0.99))]
        print(
            f"pod create to Ready, one at a time      p50 {middle:6.1f} ms  p99 {last:6.1f}  ratio {middle / least:.1f}"
        )
        print(f"{count:3d} pods gone                           {await remove_pods(client):6.2f} s")
        for many in (30, 100):
            together = await start_pods(client, {f"many-{number}" for number in range(many)})
            resident = _memory(bench.processes())[0]
            print(f"{many:3d} pods at once                        {together:6.2f} s   {resident:.0f} MB resident")
            print(f"{many:3d} pods gone                           {await remove_pods(client):6.2f} s")


def measure(folder: Path, count: int) -> None:
    """Run everything and print."""
    load, crun = floor_load(), floor_crun(folder / "crun", 10)
    print(
        f"floor: Python loads compiled modules    {load:6.2f} s\nfloor: crun alone                       {crun:6.1f} ms"
    )
    with serving(folder) as registry:
        push_nginx(folder, registry, IMAGE.split(":")[1])
        bench = Bench(folder / "home", registry)
        try:
            ready = bench.up("--nodes", "0")["API server"]
            print(f"exec to API ready, no node              {ready:6.2f} s   ratio {ready / load:.2f}")
            bench.delete()
            began = time.perf_counter()
            for name, at in bench.up().items():
                print(f"exec to {name:25s}       {at:6.2f} s   ratio {at / load:.2f}")
            bench.kubectl("apply", "-f", "-", given=WEB)
            bench.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/asks", "--timeout=30s")
            print(f"exec to an answer by the Service's name {time.perf_counter() - began:6.2f} s")
            bench.kubectl("delete", "deployment/web", "service/web", "pod/asks")
            pids = bench.processes()
            before, at = _cpu(pids), time.perf_counter()
            time.sleep(IDLE_SECONDS)
            share = (_cpu(pids) - before) / (time.perf_counter() - at) * 100
            resident, proportional = _memory(pids)
            memory = f"{resident:.0f} MB resident, {proportional:.0f} MB proportional"
            print(f"idle: {len(pids)} processes   {memory}   {share:.2f} % of a core")
            asyncio.run(pods(bench, count, crun))
        finally:
            bench.delete()


def main() -> None:
    """Measure in a folder of its own and leave nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="steer-bench-"))
    try:
        measure(folder, int(sys.argv[1]) if len(sys.argv) > 1 else 30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
