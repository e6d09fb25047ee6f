"""A certificate for a webhook server on 127.0.0.1, its own authority."""

from __future__ import annotations

import subprocess
from pathlib import Path


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Certificate and key, as files."""
    certificate, key = folder / "webhook.crt", folder / "webhook.key"
    words = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", "-x509", *words, *names, *files], check=True, capture_output=True)
    return certificate, key
