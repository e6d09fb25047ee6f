"""`steer profile list`."""

from __future__ import annotations

import argparse

from steersman.cli.output import print_json, table
from steersman.cluster.profile import ProfileError, load, names


def arguments(parser: argparse.ArgumentParser) -> None:
    """Only `list`, so far."""
    parser.add_argument("verb", choices=["list"])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")


def run(args: argparse.Namespace) -> int:
    """Always 0."""
    from steersman.cluster.supervisor import processes

    valid, invalid = [], []
    for name in names():
        try:
            profile = load(name)
        except ProfileError:
            profile = None
        if profile is None:
            invalid.append({"Name": name})
            continue
        status = "Running" if processes(profile.run) else "Stopped"
        valid.append(
            {
                "Name": name,
                "Status": status,
                "Nodes": profile.nodes,
                "Port": profile.api_port,
                "KubernetesVersion": f"v{profile.release}",
            }
        )
    if args.output == "json":
        print_json({"valid": valid, "invalid": invalid})
    else:
        rows = [[str(item[key]) for key in ("Name", "KubernetesVersion", "Status", "Nodes", "Port")] for item in valid]
        table([["PROFILE", "VERSION", "STATUS", "NODES", "PORT"], *rows])
    return 0
