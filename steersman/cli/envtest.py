"""`steer envtest`: programs for KUBEBUILDER_ASSETS, so that a Go operator's envtest suite runs on Steersman."""

from __future__ import annotations

import argparse
from pathlib import Path

from steersman.cli.output import Failure


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where to put them, and how to print the place, as setup-envtest does."""
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="default: envtest in steer's home")
    choices = ["env", "path"]
    parser.add_argument("--print", choices=choices, default="env", help="a line for the shell, or the folder alone")


def run(args: argparse.Namespace) -> int:
    """Returns 0 when the programs are there."""
    from steersman.cluster.envtest import install
    from steersman.cluster.profile import home

    folder = (args.folder or home() / "envtest").absolute()
    try:
        install(folder)
    except OSError as error:
        raise Failure(f"cannot write to {folder}: {error.strerror}") from error
    print(folder if args.print == "path" else f"export KUBEBUILDER_ASSETS='{folder}'")
    return 0
