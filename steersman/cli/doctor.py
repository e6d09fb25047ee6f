"""`steer doctor`: what this machine can do, and what to install."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from steersman.cli.output import print_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """`-o`."""
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")


def run(args: argparse.Namespace) -> int:
    """0 when containers can run here."""
    from steersman.engine import doctor

    checks = doctor.probe()
    if args.output == "json":
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            mark = "ok  " if check.ok else ("FAIL" if check.needed else "no  ")
            print(f"{mark} {check.name}: {check.why}")
            if check.remedy:
                print(f"       {check.remedy}")
    return 0 if doctor.is_fit(checks) else 1
