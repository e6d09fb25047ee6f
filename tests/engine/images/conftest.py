"""Hand-made layers and images, an OCI layout of them, and a real registry on loopback."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import tarfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from steersman.engine.images.store import ImageStore
from steersman.lib.clock import SystemClock

Member = tuple[str, str, Any]
"""(kind, name, what): kinds are file, dir, link, hard, whiteout, block, char, fifo."""


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer_tar(*members: Member, format_: int = tarfile.PAX_FORMAT, **attributes: Any) -> bytes:
    """An uncompressed layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as tar:
        for kind, name, what in members:
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = 0o644, 1_700_000_000
            for key, value in attributes.items():
                setattr(info, key, value)
            data = b""
            if kind == "file":
                data = what.encode() if isinstance(what, str) else what
                info.size = len(data)
            elif kind == "dir":
                info.type, info.mode = tarfile.DIRTYPE, what or 0o755
            elif kind in ("link", "hard"):
                info.type = tarfile.SYMTYPE if kind == "link" else tarfile.LNKTYPE
                info.linkname = what
            elif kind in ("block", "char"):
                info.type = tarfile.BLKTYPE if kind == "block" else tarfile.CHRTYPE
                info.devmajor, info.devminor = what
            elif kind == "fifo":
                info.type = tarfile.FIFOTYPE
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Built:
    """An image as blobs."""

    manifest: bytes
    config: bytes
    blobs: dict[str, bytes]
    layers: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def id(self) -> str:
        return digest_of(self.config)


OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def build_image(
    layers: Sequence[bytes],
    *,
    config: dict[str, Any] | None = None,
    compress: Callable[[bytes], bytes] = gzip.compress,
    media_type: str = OCI_LAYER,
    diff_ids: Sequence[str] | None = None,
) -> Built:
    blobs = {digest_of(blob): blob for blob in map(compress, layers)}
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": config or {"Cmd": ["sh"], "Env": ["PATH=/bin", "A=b=c"]},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids or map(digest_of, layers))},
        "history": [{"created": "2026-01-02T03:04:05Z", "created_by": "test"} for _ in layers],
    }
    raw = json.dumps(document).encode()
    blobs[digest_of(raw)] = raw
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(raw),
            "size": len(raw),
        },
        "layers": [
            {"mediaType": media_type, "digest": digest, "size": len(blob)}
            for digest, blob in list(blobs.items())[: len(layers)]
        ],
    }
    return Built(json.dumps(manifest).encode(), raw, blobs, [each["digest"] for each in manifest["layers"]])


BASE = [
    layer_tar(("dir", "etc", 0o755), ("file", "etc/motd", "hello\n"), ("dir", "tmp", 0o1777), ("file", "gone", "x")),
    layer_tar(("file", "etc/motd", "again\n"), ("file", ".wh.gone", "")),
]


@pytest.fixture
def image() -> Built:
    return build_image(BASE)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    made = ImageStore(tmp_path / "images", SystemClock())
    yield made
    await made.close()


def write_layout(directory: Path, image: Built, tag: str = "latest") -> Path:
    """An OCI layout that skopeo reads."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    for digest, data in {**image.blobs, image.digest: image.manifest}.items():
        (blobs / digest[7:]).write_bytes(data)
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.digest,
        "size": len(image.manifest),
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return directory


async def run(*command: str) -> str:
    """Run a program to its end; its output."""
    made = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await made.communicate()
    assert made.returncode == 0, f"{command}: {out.decode()}"
    return out.decode()


def skopeo(*arguments: str) -> tuple[str, ...]:
    return ("skopeo", "--insecure-policy", *arguments)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


REGISTRY_CONFIG = """version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
{more}
"""


@pytest.fixture
async def start_registry(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start Debian's docker-registry; gives `host:port`."""
    binary = shutil.which("docker-registry")
    assert binary, "docker-registry is not installed"
    started: list[asyncio.subprocess.Process] = []

    async def start(more: str = "") -> str:
        port = free_port()
        root = tmp_path / f"registry-{port}"
        root.mkdir()
        config = root / "config.yml"
        config.write_text(REGISTRY_CONFIG.format(root=root, port=port, more=more))
        environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        process = await asyncio.create_subprocess_exec(
            binary,
            "serve",
            str(config),
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        started.append(process)
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return f"127.0.0.1:{port}"
                except ConnectionRefusedError:
                    await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=0.02)
                    assert process.returncode is None, "the registry ended"

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()
