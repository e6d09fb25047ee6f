import gzip
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
import zstandard

from steersman.engine.images.tar import BadArchive
from steersman.engine.images.unpack import unpack
from tests.engine.images.conftest import Member, digest_of, layer_tar


def unpacked(tmp_path: Path, tar: bytes, blob: bytes | None = None) -> Path:
    source = tmp_path / "blob"
    source.write_bytes(tar if blob is None else blob)
    target = tmp_path / "layer"
    unpack(source, target, digest_of(tar))
    return target


def refused(tmp_path: Path, tar: bytes, blob: bytes | None = None) -> str:
    with pytest.raises(BadArchive) as raised:
        unpacked(tmp_path, tar, blob)
    assert sorted(os.listdir(tmp_path)) == ["blob"], "something was left behind"
    return str(raised.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_files_come_out_as_they_went_in(tmp_path: Path, pack) -> None:  # noqa: ANN001
    long = "d/" * 60 + "x" * 120
    tar = layer_tar(
        ("dir", "./", 0o755),
        ("dir", "bin", 0o2755),
        ("file", "bin/su", os.urandom(300_000)),
        ("link", "sbin", "bin"),
        ("file", "sbin/through", "in bin"),
        ("hard", "bin/su2", "bin/su"),
        ("file", long, "deep"),
        ("fifo", "pipe", None),
        ("file", "/absolute", "inside"),
        ("char", "dev/null", (1, 3)),
    )
    target = unpacked(tmp_path, tar, pack(tar))
    assert (target / "bin/through").read_text() == "in bin"
    assert os.readlink(target / "sbin") == "bin"
    assert (target / "bin/su").stat().st_ino == (target / "bin/su2").stat().st_ino
    assert stat.S_IMODE((target / "bin").stat().st_mode) == 0o2755
    assert (target / "bin").stat().st_mtime == 1_700_000_000
    assert (target / long).read_text() == "deep"
    assert stat.S_ISFIFO((target / "pipe").lstat().st_mode)
    assert (target / "absolute").read_text() == "inside"
    assert not (target / "dev/null").exists()


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_every_header_format_is_read(tmp_path: Path, format_: int) -> None:
    name = "a" * 90 + "/" + "b" * 60
    target = unpacked(tmp_path, layer_tar(("file", name, "1"), ("link", "l", "t" * 80), format_=format_))
    assert (target / name).read_text() == "1"
    assert os.readlink(target / "l") == "t" * 80


def test_gzip_in_several_members_is_one_stream(tmp_path: Path) -> None:
    tar = layer_tar(("file", "a", "x" * 5000))
    target = unpacked(tmp_path, tar, gzip.compress(tar[:700]) + gzip.compress(tar[700:]))
    assert (target / "a").read_text() == "x" * 5000


def test_a_later_member_replaces_an_earlier_one(tmp_path: Path) -> None:
    tar = layer_tar(
        ("file", "a", "1"),
        ("dir", "b", 0),
        ("file", "b/c", "1"),
        ("link", "d", "/etc"),
        ("file", "a", "2"),
        ("file", "b", "file now"),
        ("dir", "d", 0),
        ("file", "d/passwd", "ours"),
    )
    target = unpacked(tmp_path, tar)
    assert (target / "a").read_text() == "2"
    assert (target / "b").read_text() == "file now"
    assert not (target / "d").is_symlink()
    assert (target / "d/passwd").read_text() == "ours"


@pytest.mark.node
def test_owners_modes_and_attributes_are_kept(tmp_path: Path) -> None:
    tar = layer_tar(
        ("file", "setuid", "x"),
        ("dir", "home", 0o700),
        mode=0o4755,
        uid=1000,
        gid=2_000_000_000,
        pax_headers={"SCHILY.xattr.user.note": "kept"},
    )
    target = unpacked(tmp_path, tar)
    found = (target / "setuid").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o4755, 1000, 2_000_000_000)
    assert os.getxattr(target / "setuid", "user.note") == b"kept"
    assert (target / "home").stat().st_uid == 1000


@pytest.mark.node
def test_whiteouts_become_overlays(tmp_path: Path) -> None:
    tar = layer_tar(
        ("file", "etc/.wh.passwd", ""),
        ("file", "var/.wh..wh..opq", ""),
        ("file", ".wh.again", ""),
        ("dir", "again", 0),
        ("file", "kept", "new"),
        ("file", ".wh.kept", ""),
        ("file", ".wh..wh.plnk", ""),
    )
    target = unpacked(tmp_path, tar)
    hidden = (target / "etc/passwd").lstat()
    assert stat.S_ISCHR(hidden.st_mode) and hidden.st_rdev == 0
    assert os.getxattr(target / "var", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(target / "again", "trusted.overlay.opaque") == b"y"
    assert (target / "kept").read_text() == "new"
    assert sorted(os.listdir(target)) == ["again", "etc", "kept", "var"]


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([("file", "../evil", "x")], "leads out of the layer"),
        ([("file", "a/../../evil", "x")], "leads out of the layer"),
        ([("link", "out", "../../../tmp"), ("file", "out/evil", "x")], "leads out of the layer"),
        ([("link", "a", "b"), ("link", "b", "a"), ("file", "a/evil", "x")], "too many levels"),
        ([("hard", "shadow", "../../etc/shadow")], "leads out of the layer"),
        ([("hard", "shadow", "/etc/shadow")], "invalid hard link"),
        ([("link", "e", "/etc"), ("hard", "shadow", "e/shadow")], "invalid hard link"),
        ([("block", "sda", (8, 0))], "device node 'sda' (block device 8:0) is not allowed"),
        ([("char", "mem", (1, 1))], "is not allowed in an image layer"),
        ([("char", "zero", (0, 0))], "is not allowed in an image layer"),
        ([("file", ".wh...", "")], "invalid whiteout"),
        ([("file", ".wh.", "")], "invalid whiteout"),
        ([("file", "f", "x"), ("file", "f/below", "x")], "invalid path"),
        ([("file", "n" * 300, "x")], "invalid path"),
        ([("file", "d/" * 2500, "x")], "longer than 4096"),
    ],
)
def test_hostile_members_are_refused(tmp_path: Path, members: list[Member], why: str) -> None:
    assert why in refused(tmp_path, layer_tar(*members))


def test_a_link_out_of_the_layer_leads_into_it_as_in_a_chroot(tmp_path: Path) -> None:
    tar = layer_tar(("link", "e", "/etc"), ("file", "e/passwd", "ours"))
    target = unpacked(tmp_path, tar)
    assert (target / "etc/passwd").read_text() == "ours"


def test_overlay_attributes_cannot_be_smuggled_in(tmp_path: Path) -> None:
    tar = layer_tar(("file", "f", "x"), pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})
    assert "is not allowed" in refused(tmp_path, tar)


def test_huge_headers_are_refused(tmp_path: Path) -> None:
    assert "over the limit" in refused(
        tmp_path, layer_tar(("file", "f", "x"), pax_headers={"comment": "x" * (2 << 20)})
    )


@pytest.mark.parametrize("cut", [100, 512, 700, 1000])
def test_truncated_archives_are_refused(tmp_path: Path, cut: int) -> None:
    tar = layer_tar(("file", "f", "x" * 600))
    assert "unexpected EOF" in refused(tmp_path, tar[:cut]) or cut == 0


def test_truncated_and_broken_compression_is_refused(tmp_path: Path) -> None:
    tar = layer_tar(("file", "f", os.urandom(5000)))
    packed = gzip.compress(tar)
    assert "unexpected EOF" in refused(tmp_path, tar, packed[:-100])
    broken = bytearray(packed)
    broken[2000:2010] = b"\xff" * 10
    assert "gzip" in refused(tmp_path, tar, bytes(broken))
    assert "zstd" in refused(tmp_path, tar, zstandard.compress(tar)[:4] + b"\xff" * 50)


def test_a_wrong_diff_id_is_refused(tmp_path: Path) -> None:
    tar = layer_tar(("file", "f", "x"))
    (tmp_path / "blob").write_bytes(tar)
    with pytest.raises(BadArchive, match="wrong diff id"):
        unpack(tmp_path / "blob", tmp_path / "layer", digest_of(b"other"))
    assert not (tmp_path / "layer").exists()


def test_broken_headers_are_refused(tmp_path: Path) -> None:
    good = bytearray(layer_tar(("file", "f", "x"), format_=tarfile.USTAR_FORMAT))
    for at, value in [(0, 0x41), (124, 0x7A), (148, 0x39)]:
        bad = bytearray(good)
        bad[at] = value
        assert refused(tmp_path, bytes(bad)) == "invalid tar header"
    assert refused(tmp_path, os.urandom(2048)) == "invalid tar header"


def test_every_cut_of_a_hostile_stream_ends_in_a_clear_error(tmp_path: Path) -> None:
    tar = layer_tar(("dir", "d", 0), ("file", "d/f", "x" * 3000), pax_headers={"comment": "y" * 700})
    for cut in range(1, len(tar.rstrip(b"\0")), 397):
        source = io.BytesIO(tar[:cut]).getvalue()
        assert refused(tmp_path, source)
