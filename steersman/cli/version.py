"""`steer version`."""

from __future__ import annotations

import argparse

from steersman import __version__


def arguments(parser: argparse.ArgumentParser) -> None:
    """`--short`, as minikube has it."""
    parser.add_argument("--short", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Always 0."""
    print(f"v{__version__}" if args.short else f"steer version: v{__version__}")
    return 0
