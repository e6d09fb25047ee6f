"""`steer why pod NAME`: why a pod is on its node, or on none, node by node and plugin by plugin."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from steersman.cli.output import Failure, print_json, profile_of, table_lines

_SHOWN = 20  # nodes, unless all are asked for


def arguments(parser: argparse.ArgumentParser) -> None:
    """kubectl's way of naming a pod."""
    parser.add_argument("what", nargs="+", metavar="pod NAME", help="the pod, as `pod NAME` or `pod/NAME`")
    parser.add_argument("-n", "--namespace", default="default", metavar="NAMESPACE", help="default: default")
    parser.add_argument("--all", action="store_true", help=f"every node, not only the first {_SHOWN}")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")


def run(args: argparse.Namespace) -> int:
    """0 when the scheduler could tell."""
    name = _name(args.what)
    profile = profile_of(args.profile)
    told = asyncio.run(_ask_all(sorted(profile.run.glob("scheduler*.sock")), args.namespace, name))
    if told is None:
        raise Failure(f'pods "{name}" not found in namespace {args.namespace!r}, or no scheduler here looks after it')
    if args.output == "json":
        print_json(told)
    else:
        for line in lines(told, None if args.all else _SHOWN):
            print(line)
    return 0


def _name(words: list[str]) -> str:
    kind, slash, name = words[0].partition("/")
    if not slash:
        name = words[1] if len(words) == 2 else ""
    if kind not in ("pod", "pods", "po") or not name or len(words) > 2 - bool(slash):
        raise Failure("only pods can be asked about: steer why pod NAME", 2)
    return name


async def _ask_all(sockets: list[Path], namespace: str, name: str) -> Any:
    """The answer of the first scheduler that knows the pod; one that is gone does not matter while another knows."""
    failure = Failure("cannot ask the scheduler: there is none; is the cluster up, and does it have a node?")
    answered = False
    for socket in sockets:
        try:
            told = await _ask(socket, namespace, name)
        except Failure as found:
            failure = found
            continue
        answered = True
        if told is not None:
            return told
    if not answered:
        raise failure
    return None


async def _ask(socket: Path, namespace: str, name: str) -> Any:
    from steersman.lib.http.client import Address, HttpClient

    client = HttpClient(Address(unix=socket))
    try:
        answer = await client.request("GET", f"/why/{quote(namespace, safe='')}/{quote(name, safe='')}")
        body = await answer.read()
        return json.loads(body) if answer.status == 200 else None
    except OSError as error:
        raise Failure(f"cannot ask the scheduler: {error}; is the cluster up, and does it have a node?") from error
    finally:
        await client.close()


def lines(told: dict[str, Any], most: int | None) -> list[str]:
    """The answer for people. `most`: how many nodes are listed."""
    out = [f"{told['pod']} ({told['scheduler']}): " + (f"on node {told['node']}" if told["node"] else "on no node")]
    if "queue" in told:
        out.append(_queued(told["queue"]))
    if "message" in told:
        out.append(told["message"])
    if "refusedBy" in told:
        out.append(f"{told['refusedBy']['plugin']}: {told['refusedBy']['reason']}")
        return out
    if told["basis"] == "now":
        out.append("as things are now: what was decided on is no longer known")
    nodes = sorted(told["nodes"], key=lambda each: -each.get("score", -1))
    good = [each for each in nodes if "score" in each]
    why = Counter((each["plugin"], each["reason"]) for each in nodes if "plugin" in each)
    out += [f"{count} of {len(nodes)} nodes: {plugin}: {reason}" for (plugin, reason), count in why.most_common()]
    rows = [["NODE", "SCORE", "WHY"]]
    rows += [[each["name"], str(each["score"]), _parts(each["scores"])] for each in good]
    rows += [[each["name"], "-", f"{each['plugin']}: {each['reason']}"] for each in nodes if "plugin" in each]
    return [*out, "", *table_lines(rows if most is None else rows[: most + 1])]


def _queued(queue: dict[str, Any]) -> str:
    text = f"{queue['place']}, tried {queue['attempts']} times"
    return text + (f", waits for what may help against {', '.join(queue['plugins'])}" if queue["plugins"] else "")


def _parts(scores: dict[str, dict[str, int]]) -> str:
    return ", ".join(f"{name} {each['score']}x{each['weight']}" for name, each in scores.items()) or "the only choice"
