"""`steer logs`: what the cluster's own processes logged."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections import deque

from steersman.cli.output import Failure, profile_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """minikube's flags."""
    parser.add_argument("component", nargs="?", help="one process, such as apiserver, control or node-0")
    parser.add_argument("-n", "--length", type=int, default=60, metavar="LINES", help="lines of each (default 60)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as lines are written")


def run(args: argparse.Namespace) -> int:
    """0 when there was a log."""
    profile = profile_of(args.profile)
    files = sorted(profile.logs.glob("*.log")) if profile.logs.is_dir() else []
    if args.component:
        files = [file for file in files if file.stem == args.component]
    if not files:
        raise Failure(f"{profile.name} has no log{f' of {args.component!r}' if args.component else ''}")
    if args.follow:
        tail = shutil.which("tail")
        if not tail:
            raise Failure("cannot follow: there is no tail on PATH")
        return subprocess.call([tail, "-n", str(args.length), "-F", *map(str, files)])
    for file in files:
        print(f"==> {file.stem} <==")
        with file.open(errors="replace") as lines:
            sys.stdout.writelines(deque(lines, maxlen=max(args.length, 0)))
    return 0
