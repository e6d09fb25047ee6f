"""A real registry on loopback, and images made from Debian's packages in it."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NGINX_CONF = """
user root; worker_processes 1; error_log /dev/stderr; pid /run/nginx.pid;
events { worker_connections 64; }
http {
  access_log /dev/stdout;
  server { listen 80; location / { return 200 "$hostname\\n"; } }
}
"""
_APPLETS = (
    "sh",
    "cat",
    "ls",
    "sleep",
    "wget",
    "nslookup",
    "kill",
    "ps",
    "echo",
    "tar",
    "hostname",
    "true",
    "id",
    "env",
)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """docker-registry over `folder`; yields host:port."""
    address = f"127.0.0.1:{free_port()}"
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: {address}}}\n"
    )
    program = shutil.which("docker-registry")
    assert program, "docker-registry is not installed: run ./steer test"
    with (
        (folder / "registry.log").open("w") as log,
        subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log) as process,
    ):
        try:
            for _ in range(100):
                try:
                    urllib.request.urlopen(f"http://{address}/v2/", timeout=1).close()
                    break
                except OSError:
                    assert process.poll() is None, (folder / "registry.log").read_text()
                    subprocess.run(["sleep", "0.05"], check=True)
            yield address
        finally:
            process.terminate()


def _libraries(program: str) -> list[str]:
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return [word for line in listing.splitlines() for word in line.split() if word.startswith("/")]


def _layer() -> bytes:
    """nginx with its libraries, and busybox for a shell."""
    nginx, busybox = shutil.which("nginx") or "/usr/sbin/nginx", "/bin/busybox"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        seen: set[str] = set()
        for path in [nginx, *_libraries(nginx), busybox]:
            if path not in seen:
                seen.add(path)
                tar.gettarinfo(path)
                info = tar.gettarinfo(str(Path(path).resolve()), arcname=path.lstrip("/"))
                with Path(path).resolve().open("rb") as file:
                    tar.addfile(info, file)
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
            tar.addfile(link)
        for folder in ("tmp", "run", "var/log/nginx", "var/lib/nginx"):
            made = tarfile.TarInfo(folder)
            made.type, made.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(made)
        texts = {
            "etc/nginx/nginx.conf": _NGINX_CONF,
            "etc/passwd": "root:x:0:0::/:/bin/sh\n",
            "etc/group": "root:x:0:\n",
        }
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def push_nginx(folder: Path, registry: str, *tags: str) -> None:
    """Push docker.io/library/nginx under each of `tags`; each tag is an image of its own."""
    layer = _layer()
    for tag in tags:
        layout = folder / f"nginx-{tag}"
        _write_layout(layout, layer, tag)
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", f"oci:{layout}:{tag}",
             f"docker://{registry}/library/nginx:{tag}"],
            check=True, capture_output=True,
        )  # fmt: skip


def _write_layout(layout: Path, layer: bytes, tag: str) -> None:
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, media: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    prefix = "application/vnd.oci.image"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["nginx", "-g", "daemon off;"],
            "Labels": {"tag": tag},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "tests"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{prefix}.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), f"{prefix}.config.v1+json"),
        "layers": [blob(layer, f"{prefix}.layer.v1.tar")],
    }
    entry = blob(json.dumps(manifest).encode(), f"{prefix}.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "mediaType": f"{prefix}.index.v1+json", "manifests": [entry]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
