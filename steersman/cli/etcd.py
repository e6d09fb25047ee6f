"""`steer etcd`: a cluster's whole state to a file and back, with the words of etcdctl and etcdutl."""

from __future__ import annotations

import argparse
from pathlib import Path

from steersman.cli.output import Failure, print_json, profile_of, step, table
from steersman.cluster.profile import Profile, ProfileError, home, locked


def arguments(parser: argparse.ArgumentParser) -> None:
    """`snapshot save|restore|status FILE` and `defrag`."""
    parser.add_argument("what", choices=["snapshot", "defrag"], metavar="snapshot|defrag")
    parser.add_argument("verb", nargs="?", choices=["save", "restore", "status"], metavar="save|restore|status")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="of status")
    parser.add_argument(
        "--bump-revision",
        type=_count,
        default=0,
        metavar="N",
        help="of restore: go on N revisions later and forget the past, so that clients read everything anew",
    )
    parser.add_argument("--skip-hash-check", action="store_true", help="of restore and status: take a copied database")


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 40:
        raise ValueError
    return number


def run(args: argparse.Namespace) -> int:
    """Returns 0 when it is done."""
    from steersman.store.backup import SnapshotError

    if (args.what == "snapshot") != (args.verb is not None and args.file is not None):
        raise Failure("usage: steer etcd snapshot save|restore|status FILE, or steer etcd defrag", 2)
    try:
        (_snapshot if args.what == "snapshot" else _defragment)(args)
    except (SnapshotError, ProfileError) as error:
        raise Failure(str(error)) from error
    return 0


def _snapshot(args: argparse.Namespace) -> None:
    from steersman.store import backup

    if args.verb == "status":
        _show(backup.status(args.file, check_hash=not args.skip_hash_check), args.output)
        return
    profile = profile_of(args.profile)
    if args.verb == "save":
        backup.save(_database(profile), args.file)
        step(f"Snapshot saved at {args.file}")
        return
    with locked(home(), profile.name):
        if _running(profile):
            raise Failure(f'the cluster "{profile.name}" is running: "steer stop -p {profile.name}" comes first')
        found = backup.restore(
            args.file, _database(profile), bump=args.bump_revision, check_hash=not args.skip_hash_check
        )
    step(f'restored {found.keys} keys at revision {found.revision + args.bump_revision} to "{profile.name}"')


def _defragment(args: argparse.Namespace) -> None:
    from steersman.store import backup

    before, after = backup.defragment(_database(profile_of(args.profile)))
    step(f"Finished defragmenting: {before} bytes before, {after} after")


def _running(profile: Profile) -> bool:
    from steersman.cluster.supervisor import processes

    return any(processes(profile.run).values())


def _database(profile: Profile) -> Path:
    """The SQLite file. Raises Failure where the state is somewhere else."""
    if profile.store.startswith("etcd=") or profile.options("apiserver").get("etcd-servers"):
        raise Failure(f'the state of "{profile.name}" is in an etcd of yours: use etcdctl with it')
    if profile.store == "memory":
        raise Failure(f'"{profile.name}" keeps its state in memory only')
    return profile.directory / "store.db"


def _show(found: object, output: str) -> None:
    from steersman.store.backup import Summary

    assert isinstance(found, Summary)
    if output == "json":
        print_json({"hash": found.hash, "revision": found.revision, "totalKey": found.keys, "totalSize": found.size})
    else:
        row = [f"{found.hash:x}", str(found.revision), str(found.keys), f"{found.size / 1e6:.1f} MB"]
        table([["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"], row])
