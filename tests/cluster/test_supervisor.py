"""The supervisor, with real processes: restart, stop in order, no orphan when it is killed."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steersman.cluster.supervisor import Supervisor, alive, name_process, processes


class Running:
    """A supervisor in a process of its own whose children report on a pipe."""

    def __init__(self, folder: Path, bodies: dict[str, Callable[[Callable[[str], None]], None]]) -> None:
        self.folder = folder
        self.reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            name_process("steer")

            def say(text: str) -> None:
                os.write(writer, f"{text}\n".encode())

            Supervisor(folder, folder, [(n, lambda body=body: body(say)) for n, body in bodies.items()]).main()
            os._exit(0)
        os.close(writer)
        self._lines: list[str] = []

    def next(self) -> str:
        """The next line that a child wrote."""
        while not self._lines:
            assert select.select([self.reader], [], [], 10)[0], "no child said anything for 10 s"
            chunk = os.read(self.reader, 4096)
            assert chunk, "every process has ended"
            self._lines += chunk.decode().splitlines()
        return self._lines.pop(0)

    def ended(self) -> bool:
        """Whether everybody who could write has closed the pipe within 10 s."""
        while select.select([self.reader], [], [], 10)[0]:
            if not os.read(self.reader, 4096):
                return True
        return False


Start = Callable[[dict[str, Callable[[Callable[[str], None]], None]]], Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[Running] = []

    def begin(bodies: dict[str, Callable[[Callable[[str], None]], None]]) -> Running:
        made.append(Running(tmp_path, bodies))
        return made[-1]

    yield begin
    for running in made:
        if alive(running.pid):
            os.kill(running.pid, signal.SIGKILL)
        os.waitpid(running.pid, 0)
        os.close(running.reader)


def _worker(name: str) -> Callable[[Callable[[str], None]], None]:
    def body(say: Callable[[str], None]) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        say(f"{name} {os.getpid()}")
        signal.sigwait({signal.SIGTERM})
        say(f"{name} stops")

    return body


def test_a_killed_child_is_started_again(start: Start) -> None:
    running = start({"one": _worker("one")})
    first = int(running.next().split()[1])
    assert alive(first)
    os.kill(first, signal.SIGKILL)
    second = int(running.next().split()[1])
    assert second != first
    assert processes(running.folder)["supervisor"] == running.pid


def test_term_stops_children_in_reverse_order(start: Start) -> None:
    running = start({"one": _worker("one"), "two": _worker("two")})
    started = sorted([running.next(), running.next()])
    assert [line.split()[0] for line in started] == ["one", "two"]
    os.kill(running.pid, signal.SIGTERM)
    assert [running.next(), running.next()] == ["two stops", "one stops"]
    assert running.ended()
    assert processes(running.folder) == {}
    assert not (running.folder / "processes.json").exists()


def test_children_do_not_outlive_a_killed_supervisor(start: Start) -> None:
    running = start({"one": _worker("one")})
    running.next()
    os.kill(running.pid, signal.SIGKILL)
    assert running.next() == "one stops"
    assert running.ended()


def test_a_child_that_raises_is_logged_and_backs_off(start: Start) -> None:
    def body(say: Callable[[str], None]) -> None:
        say("tried")
        raise RuntimeError("broken on purpose")

    running = start({"bad": body})
    assert [running.next(), running.next(), running.next()] == ["tried"] * 3
    assert "broken on purpose" in (running.folder / "bad.log").read_text()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"supervisor": "x", "children": {}}', '{"supervisor": 1}'])
def test_a_broken_state_file_means_nothing_runs(tmp_path: Path, content: str) -> None:
    (tmp_path / "processes.json").write_text(content)
    assert processes(tmp_path) == {}


def test_somebody_elses_process_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "processes.json").write_text('{"supervisor": 1, "children": {}}')
    assert processes(tmp_path) == {}
