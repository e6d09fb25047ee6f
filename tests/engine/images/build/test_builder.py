"""Whole builds in a real mount namespace, with a busybox for RUN."""

from __future__ import annotations

import asyncio
import io
import json
import lzma
import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from steersman.engine.images.build import BuildFailed, build
from steersman.engine.images.store import ImageStore
from steersman.engine.interface import Image
from tests.engine.images.conftest import build_image, layer_tar

pytestmark = pytest.mark.node

BASE = "FROM busybox:1\n"
APPLETS = "sh echo cat id ls mkdir rm touch chmod pwd env mknod ln sleep hostname"


@pytest.fixture
async def busybox(store: ImageStore) -> Image:
    """An image docker.io/library/busybox:1."""
    binary = shutil.which("busybox", path="/bin:/usr/bin")
    assert binary, "busybox-static is not installed"
    tar = layer_tar(
        ("dir", "bin", 0o755),
        ("dir", "etc", 0o755),
        ("dir", "lib", 0o755),
        ("link", "lib64", "lib"),
        ("link", "abs", "/lib"),
        ("file", "etc/passwd", "root:x:0:0::/:/bin/sh\nweb:x:7:8::/home/web:/bin/sh\n"),
        ("file", "etc/group", "root:x:0:\nweb:x:8:\n"),
        ("file", "doomed", "x"),
        ("dir", "full", 0o755),
        ("file", "full/a", "x"),
    )
    program = layer_tar(
        ("file", "bin/busybox", Path(binary).read_bytes()),
        *(("link", f"bin/{name}", "busybox") for name in APPLETS.split()),
        mode=0o755,
    )
    made = build_image([tar, program], config={"Env": ["PATH=/bin"], "Cmd": ["sh"]})
    from steersman.engine.images.manifest import read_manifest

    async with store.keeping():
        for data in (*made.blobs.values(), made.manifest):
            store.content.add(data)
        return await store.adopt(read_manifest(made.manifest), [made.digest], tag="docker.io/library/busybox:1")


class Made:
    """A built image, to look into."""

    def __init__(self, store: ImageStore, image: Image, said: list[str]) -> None:
        self.store, self.image, self.said = store, image, said
        self.layers = store.layers(image)
        self.document: dict[str, Any] = json.loads(store.config(image.id))
        self.config: dict[str, Any] = self.document["config"]

    def find(self, name: str) -> Path | None:
        for layer in self.layers:
            path = layer / name
            if os.path.lexists(path):
                found = path.lstat()
                return None if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0 else path
        return None

    def read(self, name: str) -> str:
        found = self.find(name)
        assert found is not None, f"no {name} in the image"
        return found.read_text()


async def make(store: ImageStore, directory: Path, text: str, **options: Any) -> Made:
    directory.mkdir(exist_ok=True)
    (directory / "Dockerfile").write_text(text)
    said: list[str] = []
    image = await build(store, directory, progress=said.append, **options)
    return Made(store, image, said)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


async def test_every_instruction(store: ImageStore, busybox: Image, here: Path) -> None:
    (here / "app.js").write_text("app")
    made = await make(
        store,
        here,
        BASE
        + "ARG WHO=nobody\nENV GREETING=hello-$WHO OTHER='a b'\nLABEL maintainer=me version=\"1 2\"\nWORKDIR /srv\n"
        + "WORKDIR app\nCOPY app.js .\nRUN echo $GREETING > said; pwd >> said; id -u >> said\nUSER web\n"
        + "RUN id -u > /tmp/who || id -u > /srv/app/who; true\nEXPOSE 8080 53/udp 9000-9001\nVOLUME /data /more\n"
        + 'STOPSIGNAL SIGQUIT\nSHELL ["/bin/sh", "-ec"]\nCMD node app.js\nENTRYPOINT ["node", "./app.js"]\n'
        + 'CMD ["x"]\nHEALTHCHECK --interval=5s --retries=3 CMD echo ok\nONBUILD LABEL triggered=yes\n'
        + "MAINTAINER you\n",
        tags=["gcr.io/mohr-dev/hello-node:v1", "hello"],
        arguments={"WHO": "world"},
    )
    assert made.image.tags == ("gcr.io/mohr-dev/hello-node:v1", "docker.io/library/hello:latest")
    assert made.read("srv/app/said") == "hello-world\n/srv/app\n0\n"
    assert made.config["Env"] == ["PATH=/bin", "GREETING=hello-world", "OTHER=a b"]
    assert made.config["Labels"] == {"maintainer": "me", "version": "1 2"}
    assert made.config["WorkingDir"] == "/srv/app"
    assert made.config["User"] == "web"
    assert set(made.config["ExposedPorts"]) == {"8080/tcp", "53/udp", "9000/tcp", "9001/tcp"}
    assert set(made.config["Volumes"]) == {"/data", "/more"}
    assert made.config["StopSignal"] == "SIGQUIT"
    assert made.config["Entrypoint"] == ["node", "./app.js"] and made.config["Cmd"] == ["x"]
    assert made.config["Healthcheck"] == {"Test": ["CMD-SHELL", "echo ok"], "Interval": 5 * 10**9, "Retries": 3}
    assert made.config["OnBuild"] == ["LABEL triggered=yes"]
    assert made.document["author"] == "you"
    histories = [entry for entry in made.document["history"] if not entry.get("empty_layer")]
    assert len(histories) == len(made.document["rootfs"]["diff_ids"])
    assert all(entry["created"] for entry in made.document["history"])
    assert made.find("etc/resolv.conf") is None and made.find("etc/hosts") is None
    assert made.find("proc") is None and made.find("dev") is None

    child = await make(store, here, "FROM hello\nRUN echo 2\n")
    assert child.config["Labels"]["triggered"] == "yes"
    assert "OnBuild" not in child.config


async def test_deleting_shows_as_whiteouts(store: ImageStore, busybox: Image, here: Path) -> None:
    made = await make(store, here, BASE + "RUN rm doomed; rm -r full; mkdir full; touch full/b\n")
    assert made.find("doomed") is None
    assert os.getxattr(made.layers[0] / "full", "trusted.overlay.opaque") == b"y"
    assert sorted(os.listdir(made.layers[0] / "full")) == ["b"]


async def test_copying(store: ImageStore, busybox: Image, here: Path) -> None:
    (here / "src/sub").mkdir(parents=True)
    (here / "src/a.txt").write_text("a")
    (here / "src/sub/b.txt").write_text("b")
    (here / "src/sub/b.txt").chmod(0o750)
    (here / "src/link").symlink_to("sub/b.txt")
    (here / "one.cfg").write_text("1")
    (here / "two.cfg").write_text("2")
    (here / "secret.key").write_text("no")
    (here / ".dockerignore").write_text("*.key\n")
    made = await make(
        store,
        here,
        BASE
        + "COPY src /dst\nCOPY *.cfg /etc/app/\nCOPY one.cfg /renamed\nCOPY one.cfg /lib64/\nCOPY one.cfg /abs/x\n"
        + "COPY --chown=web:web --chmod=600 one.cfg /owned\nCOPY . /all/\n"
        + "COPY <<EOF /generated\nhello $PATH\nEOF\nCOPY <<'A' <<B /two/\n$x\nA\nb\nB\n"
        + 'COPY ["one.cfg", "/with space"]\n',
    )
    assert made.read("dst/a.txt") == "a" and made.read("dst/sub/b.txt") == "b"
    copied = made.find("dst/sub/b.txt")
    assert copied is not None and stat.S_IMODE(copied.stat().st_mode) == 0o750 and copied.stat().st_uid == 0
    link = made.find("dst/link")
    assert link is not None and os.readlink(link) == "sub/b.txt"
    assert made.read("etc/app/one.cfg") == "1" and made.read("etc/app/two.cfg") == "2"
    assert made.read("renamed") == "1" and made.read("lib/one.cfg") == "1" and made.read("lib/x") == "1"
    owned = made.find("owned")
    assert owned is not None and (owned.stat().st_uid, owned.stat().st_gid) == (7, 8)
    assert stat.S_IMODE(owned.stat().st_mode) == 0o600
    assert made.find("all/secret.key") is None and made.read("all/src/sub/b.txt") == "b"
    assert made.read("generated") == "hello /bin\n"
    assert made.read("two/A") == "$x\n" and made.read("two/B") == "b\n"
    assert made.read("with space") == "1"


async def test_stages(store: ImageStore, busybox: Image, here: Path) -> None:
    made = await make(
        store,
        here,
        "ARG TAG=1\nFROM busybox:$TAG AS Build\nRUN echo built > /out; ln -s /out /alias\n"
        "FROM busybox:1 AS unused\nRUN exit 9\n"
        "FROM scratch\nCOPY --from=build /out /result\nCOPY --from=0 /alias /followed\n"
        "COPY --from=busybox:1 /etc/passwd /p\n",
    )
    assert made.read("result") == "built\n" and made.read("followed") == "built\n"
    assert made.read("p").startswith("root:")
    assert made.find("bin/busybox") is None
    assert not any("exit 9" in line for line in made.said)
    stage = await make(store, here, "FROM busybox:1 AS a\nRUN touch /a\nFROM a AS b\nRUN touch /b\n", target="A")
    assert stage.find("a") is not None and stage.find("b") is None


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".bz2"])
async def test_add_unpacks_local_archives(store: ImageStore, busybox: Image, here: Path, suffix: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{suffix[1:]}") as tar:  # type: ignore[call-overload]
        info = tarfile.TarInfo("d/f")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"hi"))
        tar.addfile(tarfile.TarInfo(".wh.d"))
    (here / f"rootfs.tar{suffix}").write_bytes(out.getvalue())
    made = await make(
        store, here, f"FROM scratch\nADD rootfs.tar{suffix} /\nCOPY rootfs.tar{suffix} /as-is\nADD Dockerfile /\n"
    )
    assert made.read("d/f") == "hi"
    assert made.find(".wh.d") is None and made.find("d") is not None
    assert (made.find("as-is") or here).read_bytes() == out.getvalue()
    assert made.find("Dockerfile") is not None


async def test_add_takes_a_broken_archive_for_a_file_and_refuses_a_hostile_one(
    store: ImageStore, busybox: Image, here: Path
) -> None:
    (here / "a.xz").write_bytes(lzma.compress(b"x" * 1000)[:-20])
    (here / "evil.tar").write_bytes(layer_tar(("file", "../evil", "x")))
    made = await make(store, here, "FROM scratch\nADD a.xz /\n")
    assert made.find("a.xz") is not None
    with pytest.raises(BuildFailed, match="leads out"):
        await make(store, here, "FROM scratch\nADD evil.tar /\n")


async def test_the_cache(store: ImageStore, busybox: Image, here: Path) -> None:
    (here / "f").write_text("1")
    text = BASE + "RUN touch /first\nCOPY f /\nRUN touch /second\n"
    first = await make(store, here, text, tags=["cached"])
    again = await make(store, here, text, tags=["cached"])
    assert again.said.count("CACHED") == 3
    assert again.document["rootfs"] == first.document["rootfs"]
    os.utime(here / "f", (1, 1))
    assert (await make(store, here, text, tags=["cached"])).said.count("CACHED") == 3
    (here / "f").write_text("2")
    changed = await make(store, here, text, tags=["cached"])
    assert changed.said.count("CACHED") == 1
    assert (await make(store, here, text, cache=False)).said.count("CACHED") == 0
    await store.remove("cached")
    for image in store.list():
        if "docker.io/library/busybox:1" not in image.tags:
            await store.remove(image.id)
    assert (await make(store, here, text)).said.count("CACHED") == 0


async def test_run_forms_arguments_and_output(store: ImageStore, busybox: Image, here: Path) -> None:
    made = await make(
        store,
        here,
        BASE
        + 'ARG A=1\nRUN ["/bin/echo", "$A", "exec form"]\nRUN echo $A && echo to-stderr >&2\nRUN <<EOF\necho one > /h\n'
        + "echo $A >> /h\nEOF\nRUN cat <<EOF > /i\nbody\nEOF\n",
        arguments={"A": "given"},
    )
    assert "$A exec form" in made.said and "given" in made.said and "to-stderr" in made.said
    assert made.read("h") == "one\ngiven\n" and made.read("i") == "body\n"
    assert "A" not in dict(each.split("=") for each in made.config["Env"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "FROM Alpine\n",
            'stage name "Alpine": invalid reference format: repository name must be lowercase',
        ),
        (BASE + "RUN exit 3\n", 'process "/bin/sh -c exit 3" did not complete successfully: exit code: 3'),
        (BASE + 'RUN ["/nope"]\n', "did not complete successfully"),
        (BASE + "USER nobody-here\nRUN true\n", "unable to find user nobody-here: no matching entries in passwd file"),
        (BASE + "COPY nothing /\n", 'failed to compute cache key: "/nothing": not found'),
        (BASE + "COPY ../Dockerfile /\n", "forbidden path outside the build context: ../Dockerfile"),
        (BASE + "COPY one\n", "COPY requires at least two arguments"),
        (BASE + "COPY Dockerfile Dockerfile /etc/passwd/\n", "is not a directory"),
        (BASE + "COPY --chmod=9 Dockerfile /\n", "invalid chmod parameter"),
        (BASE + "COPY --parents Dockerfile /\n", "COPY --parents is not supported"),
        (BASE + "RUN --mount=type=ssh true\n", "RUN --mount is not supported"),
        (BASE + "ADD https://example.com/x /\n", "ADD from an address is not supported"),
        (BASE + "EXPOSE 99999\n", "invalid containerPort: 99999"),
        (BASE + "SHELL sh\n", "SHELL requires the arguments to be in JSON form"),
        (BASE + "HEALTHCHECK RUN x\n", 'Unknown type "RUN" in HEALTHCHECK'),
        (BASE + "HEALTHCHECK --interval=soon CMD x\n", "time: invalid duration"),
        (BASE + "ONBUILD FROM x\n", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a b\n", "FROM requires either one or three arguments"),
        ("RUN x\n", "no build stage in current context"),
        ("FROM 127.0.0.1:1/none\n", "connection refused"),
    ],
)
async def test_what_cannot_work_is_said_in_the_originals_words(
    store: ImageStore, busybox: Image, here: Path, text: str, why: str
) -> None:
    with pytest.raises(BuildFailed) as raised:
        await make(store, here, text, tags=["never"])
    assert why in str(raised.value)
    assert store.find("never") is None
    left = [path for path in (store.root / "ingest").rglob("*") if path.name != "lock"]
    assert [path for path in left if path.parent.parent != store.root] == []


async def test_a_step_cannot_reach_the_host(store: ImageStore, busybox: Image, here: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("host")
    (here / "link").symlink_to(outside)
    with pytest.raises(BuildFailed, match="not found"):
        await make(store, here, BASE + "COPY link/secret /\n")
    for way in (str(outside), f"../../../../../..{outside}"):
        with pytest.raises(BuildFailed, match="cannot make '/way'"):
            await make(store, here, BASE + f"RUN ln -s {way} /way\nCOPY Dockerfile /way/\n")
    assert sorted(os.listdir(outside)) == ["secret"]
    mounts = Path("/proc/self/mounts").read_text()
    assert str(store.root) not in mounts


async def test_builds_side_by_side(store: ImageStore, busybox: Image, tmp_path: Path) -> None:
    made = await asyncio.gather(
        *(make(store, tmp_path / f"c{n}", BASE + f"RUN echo {n} > /n\n", tags=[f"side:{n}"]) for n in range(4))
    )
    assert [each.read("n") for each in made] == [f"{n}\n" for n in range(4)]
