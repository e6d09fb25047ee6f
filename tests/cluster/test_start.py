"""What a start loads: what few clusters need is imported when it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["steersman.cluster.apiserver", "steersman.cluster.launch"])
def test_a_start_imports_nothing_that_few_need(module: str) -> None:
    script = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert module in loaded
    assert loaded.isdisjoint({"yaml", "tempfile", "html", "importlib.metadata", "cryptography", "numpy"})
