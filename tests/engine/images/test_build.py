"""Images from Dockerfiles: the syntax as text, broken files, and real builds with RUN in real namespaces."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from steersman.engine.images.build import BuildFailed, build
from steersman.engine.images.build.dockerfile import DockerfileError, parse
from steersman.engine.images.build.expand import expand
from steersman.engine.images.store import ImageStore
from steersman.engine.interface import Image

BASE = """FROM scratch AS base
COPY bin/busybox /bin/busybox
COPY bin/busybox /bin/sh
ENV PATH=/bin
ARG WHO=world
RUN busybox mkdir -p /etc && echo "built for $WHO" > /etc/made
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    busybox = shutil.which("busybox", path="/bin:/usr/bin")
    assert busybox, "busybox-static is not installed"
    directory = tmp_path / "context"
    (directory / "bin").mkdir(parents=True)
    shutil.copy(busybox, directory / "bin/busybox")
    (directory / "greeting").write_text("hello\n")
    (directory / "secret").write_text("no\n")
    return directory


def read(store: ImageStore, image: Image, name: str) -> str | None:
    """A file as a container of the image would see it."""
    layers = store.hold("test", image)
    return next(((layer / name).read_text() for layer in layers if (layer / name).exists()), None)


def test_instructions_join_lines_skip_comments_and_know_both_forms() -> None:
    found = parse('FROM a\n# no\nRUN one \\\n  # inside\n  two\nCMD ["sh", "-c"]\n')
    assert [(i.keyword, i.words) for i in found] == [("FROM", None), ("RUN", None), ("CMD", ("sh", "-c"))]
    assert found[1].text.split() == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM a\nNONSENSE x\n", "dockerfile parse error on line 2: unknown instruction: NONSENSE"),
        ("FROM a\nRUN <<END\necho\n", "unterminated heredoc"),
    ],
)
def test_a_broken_file_says_which_line(text: str, said: str) -> None:
    with pytest.raises(DockerfileError, match=said):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("$a", "1"), ("${b:-2}", "2"), ("${a:+set}", "set"), (r"\$a", "$a"), ("'$a'", "$a"), ('"$a"', "1"), ("$none", "")],
)
def test_variables_expand_as_a_shell_would(text: str, value: str) -> None:
    assert expand(text, {"a": "1"}) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no instructions|file with no"),
        ("RUN echo\n", "no build stage"),
        ("FROM scratch\nCOPY ../outside /\n", "outside"),
        ("FROM scratch\nCOPY absent /\n", "absent"),
        ("FROM scratch\nCOPY --from=nowhere a /\n", "nowhere"),
    ],
)
async def test_a_build_that_cannot_work_says_why_and_leaves_nothing(
    store: ImageStore, context: Path, text: str, said: str
) -> None:
    (context / "Dockerfile").write_text(text)
    (context.parent / "outside").write_text("x")
    with pytest.raises(BuildFailed, match=said):
        await build(store, context, tags=["made:1"])
    assert store.find("made:1") is None


async def test_a_context_that_is_absent_is_named(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="unable to prepare context"):
        await build(store, tmp_path / "none")


@pytest.mark.node
async def test_two_stages_run_copy_and_describe(store: ImageStore, context: Path) -> None:
    (context / "Dockerfile").write_text(
        BASE + 'FROM base\nWORKDIR /srv\nCOPY . .\nUSER 7\nCMD ["busybox", "cat", "greeting"]\n'
    )
    (context / ".dockerignore").write_text("secret\n")
    image = await build(store, context, tags=["made:1"], arguments={"WHO": "me"})
    found = store.find("made:1")
    assert found is not None and found.id == image.id
    assert read(store, image, "etc/made") == "built for me\n"
    assert read(store, image, "srv/greeting") == "hello\n"
    assert read(store, image, "srv/secret") is None
    assert (image.config.working_dir, image.config.user) == ("/srv", "7")
    assert tuple(image.config.cmd) == ("busybox", "cat", "greeting")


@pytest.mark.node
async def test_steps_are_made_again_only_from_the_first_change(store: ImageStore, context: Path) -> None:
    (context / "Dockerfile").write_text(BASE + "COPY greeting /greeting\n")
    first, said = await build(store, context), list[str]()
    again = await build(store, context, progress=said.append)
    assert list(store.hold("again", again)) == list(store.hold("first", first)) and said.count("CACHED") == 4
    (context / "greeting").write_text("other\n")
    said.clear()
    changed = await build(store, context, progress=said.append)
    assert changed.id != first.id and said.count("CACHED") == 3


@pytest.mark.node
async def test_a_command_that_fails_fails_the_build_with_its_output(store: ImageStore, context: Path) -> None:
    (context / "Dockerfile").write_text(BASE + "RUN echo told; exit 3\n")
    said: list[str] = []
    with pytest.raises(BuildFailed, match="exit code: 3"):
        await build(store, context, tags=["made:1"], progress=said.append)
    assert any("told" in line for line in said) and store.find("made:1") is None
