"""File and function sizes: soft limits are reported, hard limits fail the build.

Soft: 400 lines a file, 40 a function. Hard: 800 and 100. Exceptions stand in one list, each with its reason.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

FILE_HARD, FUNCTION_HARD = 800, 100
BANNED = {"utils", "helpers", "common", "manager", "base", "misc"}
EXCEPTIONS: dict[str, str] = {}  # path or path:function -> reason


def problems(path: Path) -> list[str]:
    """What is too big, or badly named, in one file."""
    text = path.read_text()
    found = []
    if path.stem in BANNED:
        found.append(f"{path}: name the module by its noun, not {path.stem!r}")
    if text.count("\n") > FILE_HARD:
        found.append(f"{path}: {text.count(chr(10))} lines, the limit is {FILE_HARD}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_HARD:
                found.append(f"{path}:{node.name}: {lines} lines, the limit is {FUNCTION_HARD}")
    return found


def main() -> int:
    """Print every problem that is not excepted; 1 if there is one."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], text=True, capture_output=True, check=True
    )
    found = [
        text for name in sorted(set(listing.stdout.split())) if Path(name).exists() for text in problems(Path(name))
    ]
    left = [text for text in found if text.rsplit(": ", 1)[0] not in EXCEPTIONS]
    print("\n".join(left), end="\n" if left else "")
    return bool(left)


if __name__ == "__main__":
    sys.exit(main())
