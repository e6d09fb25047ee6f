"""Stories for kubectl: commands and what the original answered, kept as data; run against any cluster.

A story is a YAML file: `files` (name to content, written beside the commands), `setup` (shell commands) and `steps`,
run in order in a namespace of the story's own. A step is `run` (kubectl's words) with `given` (standard input), `env`,
`since` and `until` (releases of kubectl that know the command), and what was answered: `out`, `err`, `code`. Where
releases of kubectl differ, an answer is a mapping from the first release to the text. `lines` ends a command that would
go on, after so many lines of output; the commands of `meanwhile` are run once it has printed the first `at` of them.
`sorted`: its lines come in any order.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

STORIES = Path(__file__).parent / "stories"
_PATIENCE = 60.0  # seconds a command may take

# What differs from run to run, and its name in a transcript. Order matters.
_VARYING = [
    (re.compile(r"https?://127\.0\.0\.1:\d+"), "SERVER"),
    (re.compile(r"127\.0\.0\.1:\d+"), "ADDRESS"),
    (re.compile(r"\b[IEW]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ "), "LOG "),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \+0000"), "TIME"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC"), "TIME"),
    (re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UID"),
    (re.compile(r"((?<=resourceVersion\": )|(?<=resourceVersion: )|(?<=resourceVersion\":))\"\d+\""), "RV"),
    (re.compile(r"(to be 1, was |Resource Version: +)\d+"), r"\1RV"),
    (re.compile(r" \(x\d+ over \w+\)"), ""),  # how often an event was seen
    (re.compile(r"\b10\.(9[6-9]|10\d|11[01])\.\d+\.\d+\b"), "CLUSTER-IP"),
    (re.compile(r"\b3[0-2]\d{3}\b"), "NODE-PORT"),
    (re.compile(r"\.[0-9a-f]{16}\b"), ".XXXXX"),  # of an event
    (re.compile(r"(?<=X509SHA256=)[0-9a-f]+"), "HASH"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+"), "TOKEN"),
    (re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{8,10}\b|(?<=-hash=)\w+"), "-HASH"),  # of a pod template
    (re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5}\b(?!-)"), "-XXXXX"),  # of a generated name
    (re.compile(r"(?:^|(?<=[ (]))(\d+[dhms]){1,2}(?=[ )]|$)|<(invalid|unknown)>(?= +\S| *$)", re.MULTILINE), "AGE"),
    (re.compile(r"/tmp/[^\s:\"]+/(\S+-edit-\w+)?"), "FOLDER/"),  # a number, or what above made of it
]  # fmt: skip
_GAP = re.compile(r"(?<=\S)(\t|  +)(?=\S)")
_MANAGED = re.compile(r"^( *)managedFields:\n((?:\1(?:- |  ).*\n)+)", re.MULTILINE)
_TIME_OF_A_DIFF = re.compile(r'[+-] +time: "TIME"')


def settled(text: str, in_order: bool = False) -> str:
    """A command's output with what varies named, columns three blanks apart, no trailing blanks; sorted if asked."""
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    lines = [_GAP.sub("   ", line).rstrip() for line in text.splitlines()]
    if in_order:
        lines.sort()
    return "\n".join(lines) + ("\n" if lines else "")


def timeless(text: str) -> str:
    """What of an answer does not depend on whether a second began between two commands.

    The original sorts managers by operation and then by the second of their last write, so their order varies; and a
    diff shows that second only where it changed, which also moves its hunks: of a diff only the changed lines count.
    """
    if re.search(r"^@@ -", text, re.MULTILINE):
        changed = (line for line in text.splitlines() if not line.startswith((" ", "@@")))
        return "\n".join(sorted(line for line in changed if not _TIME_OF_A_DIFF.fullmatch(line)))
    return _MANAGED.sub(_sorted_managers, text)


def _sorted_managers(found: re.Match[str]) -> str:
    indent, items = found.groups()
    return f"{indent}managedFields:\n" + "".join(sorted(re.split(rf"^(?={indent}- )", items, flags=re.MULTILINE)))


def release_number(release: str) -> int:
    """The minor release: 33 for "1.33"."""
    return int(release.rpartition(".")[2])


def expected(answer: Any, release: str, default: Any) -> Any:
    """What a step says of one release of kubectl."""
    if not isinstance(answer, dict):
        return default if answer is None else answer
    fitting = [first for first in answer if release_number(first) <= release_number(release)]
    return answer[max(fitting, key=release_number)] if fitting else default


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    out: str
    err: str
    code: int


def stories() -> dict[str, dict[str, Any]]:
    """Every story by name."""
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted(STORIES.glob("*.yaml"))}


def knows(step: Mapping[str, Any], release: str) -> bool:
    """Whether this release of kubectl has the step's command."""
    first, last = step.get("since", "1.0"), step.get("until", "1.999")
    return release_number(first) <= release_number(release) <= release_number(last)


class Teller:
    """Runs a story's steps with one kubectl against one cluster."""

    def __init__(self, program: Path, newest: Path, kubeconfig: Path, home: Path, story: str) -> None:
        """`newest` makes the namespace, which `story` names; `home` keeps kubectl's cache of discovery."""
        self._program, self._newest, self._home, self._story = program, newest, home, story
        self._admin = kubeconfig

    def tell(self, story: Mapping[str, Any], release: str) -> Iterator[tuple[Mapping[str, Any], Answer]]:
        """Each step that this release knows, and its answer."""
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            where = Path(folder)
            (where / "kubeconfig").write_text(self._kubeconfig())
            for name, content in (story.get("files") or {}).items():
                (where / name).write_text(content)
                if content.startswith("#!"):
                    (where / name).chmod(0o755)
            for command in story.get("setup", ()):
                subprocess.run(command, shell=True, cwd=where, check=True, capture_output=True)
            self._prepare(where)
            for step in story["steps"]:
                if knows(step, release):
                    yield step, self._call(where, step)

    def end(self) -> None:
        """Delete the namespace, and wait for its end."""
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            (Path(folder) / "kubeconfig").write_text(self._admin.read_text())
            answer = self._call(Path(folder), {"run": f"delete namespace {self._story}"}, self._newest)
            assert answer.code == 0, answer.err

    def _kubeconfig(self) -> str:
        """The only cluster and user of the given one, with the same names everywhere."""
        config = yaml.safe_load(self._admin.read_text())
        (cluster,), (user,) = config["clusters"], config["users"]
        context = {"cluster": "story", "user": "teller", "namespace": self._story}
        config |= {
            "clusters": [{**cluster, "name": "story"}],
            "users": [{**user, "name": "teller"}],
            "contexts": [{"name": "told", "context": context}],
            "current-context": "told",
        }
        return yaml.safe_dump(config)

    def _prepare(self, where: Path) -> None:
        for words in (f"create namespace {self._story}", "wait --for=create serviceaccount/default"):
            answer = self._call(where, {"run": words}, self._newest)
            assert answer.code == 0, answer.err

    def _call(self, where: Path, step: Mapping[str, Any], program: Path | None = None) -> Answer:
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self._home), "KUBECONFIG": "kubeconfig", "TZ": "UTC",
            "TMPDIR": str(where), **(step.get("env") or {}),
        }  # fmt: skip
        process = subprocess.Popen(
            [str(program or self._program), *shlex.split(step["run"])], cwd=where, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if "lines" in step:
            return self._cut(where, step, process)
        try:
            out, err = process.communicate(step.get("given", ""), timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += "\nit did not end"
        return Answer(settled(out, step.get("sorted", False)), settled(err), process.returncode)

    def _cut(self, where: Path, step: Mapping[str, Any], process: subprocess.Popen[str]) -> Answer:
        """Run `meanwhile` after `at` lines, and end the command after `lines` of them."""
        assert process.stdout is not None and process.stderr is not None
        guard = threading.Timer(_PATIENCE, process.kill)
        guard.start()
        printed: list[str] = []
        try:
            for wanted in range(step["lines"] + 1):
                if wanted == step.get("at", 1):
                    for words in step.get("meanwhile", ()):
                        self._call(where, {"run": words})
                if wanted < step["lines"]:
                    printed.append(process.stdout.readline())
        finally:
            guard.cancel()
            process.terminate()
            process.communicate()
        return Answer(settled("".join(printed)), "", 0)


def complaint(step: Mapping[str, Any], release: str, answer: Answer) -> str:
    """What is not as the original said; empty when all is."""
    found = []
    for field, default in (("out", ""), ("err", ""), ("code", 0)):
        wanted, got = expected(step.get(field), release, default), getattr(answer, field)
        same = timeless(wanted) == timeless(got) if isinstance(wanted, str) else wanted == got
        if not same:
            found.append(f"--- {field} of the original\n{wanted}\n+++ {field} here\n{got}")
    return f"$ kubectl {step['run']}   # {release}\n" + "\n".join(found) if found else ""
