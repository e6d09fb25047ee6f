"""What API operations cost: server CPU, throughput and latency of each verb, and of watch deliveries.

python -m bench.api [--seconds S] [--clients 1,32] [--only NAME,...] [--watchers 100]

Over TLS, with RBAC and the default admission, on SQLite. With PEER_BIN (a folder with kube-apiserver and etcd) the same
requests go to the peer in the same run and every figure has a ratio to it. Without, the floor is the same bytes from a
server that does not read what it is asked (GET), and the disk's own rate (creates). The load comes from this process;
CPU is that of the servers' processes alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench import apitarget, store
from bench.apiload import OPERATIONS, Load, Measured, fan_out
from bench.apitarget import Target

_WRITES_TO_DISK = ("create-configmap", "create-pod")


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    seconds: float
    clients: list[int]
    only: list[str]
    watchers: list[int]


async def measure(target: Target, options: Options) -> dict[str, Measured]:
    """Every operation with every number of clients, and the fan-outs."""
    found: dict[str, Measured] = {}
    for clients in options.clients:
        load = Load(target, clients)
        await load.prepare()
        for name in options.only:
            found[f"{name} x{clients}"] = await load.run(name, options.seconds)
        await load.close()
    for watchers in options.watchers:
        found[f"delivery to {watchers}"] = await fan_out(target, watchers, options.seconds)
    return found


def show(found: dict[str, Measured], peer: dict[str, Measured] | None, floor: float) -> None:
    """One line per operation."""
    print(f"{'operation':24} {'CPU us':>9} {'per s':>8} {'p50 ms':>8} {'p99 ms':>8}  ratios")
    for name, one in found.items():
        line = f"{name:24} {one.cpu:9.1f} {one.rate:8.0f} {one.p50 * 1e3:8.2f} {one.p99 * 1e3:8.2f}"
        other = peer.get(name) if peer else None
        if other is not None and one.cpu:
            line += f"  peer: CPU {other.cpu:.0f} us, {other.cpu / one.cpu:.1f}x; rate {one.rate / other.rate:.1f}x; "
            line += f"p99 {other.p99 / max(one.p99, 1e-9):.1f}x"
        elif name.partition(" ")[0] in _WRITES_TO_DISK:
            line += f"  {one.rate / floor:.2f} x fdatasync"
        print(line, flush=True)


@contextlib.contextmanager
def started(folder: Path, peer: bool) -> Iterator[Target]:
    """A server of either kind, which ends with the block."""
    target = apitarget.peer(folder) if peer else apitarget.ours(folder)
    try:
        yield target
    finally:
        target.stop()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", default="1,32")
    parser.add_argument("--only", default=",".join(OPERATIONS))
    parser.add_argument("--watchers", default="100")
    parser.add_argument("--starts", type=int, default=5)
    given = parser.parse_args()
    options = Options(
        given.seconds,
        [int(each) for each in given.clients.split(",")],
        given.only.split(","),
        [int(each) for each in given.watchers.split(",") if each],
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        floor = store.fdatasync_rate(folder, 0.5)
        print(f"fdatasync of 3 KB, one at a time: {floor:.0f}/s")
        starts = []
        for number in range(given.starts):
            with started(folder / f"start{number}", peer=False) as target:
                starts.append(target.started_in)
        if starts:
            print(f"process start to ready: median {statistics.median(starts):.3f} s, worst {max(starts):.3f} s")
        with started(folder / "ours", peer=False) as target:
            ours = uvloop.run(measure(target, options))
            print(f"memory: {target.memory() / 1024:.0f} MiB")
        peer = None
        if os.environ.get("PEER_BIN"):
            with started(folder / "peer", peer=True) as target:
                print(f"peer: started in {target.started_in:.2f} s")
                peer = uvloop.run(measure(target, options))
                print(f"peer: memory {target.memory() / 1024:.0f} MiB")
        show(ours, peer, floor)


if __name__ == "__main__":
    main()
