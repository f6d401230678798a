"""Archives as they should be, and those that a careful person would not unpack: refused whole."""

import io
import os
import re
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segfolio.download import unpack as module
from segfolio.download.unpack import unpack
from segfolio.errors import SegfolioError

SOUND = {"a/x.txt": b"x", "a/b/y.txt": b"y", "top.txt": b"t"}
NOISE = np.random.default_rng(0).bytes(200_000)


@pytest.fixture
def target(tmp_path):
    """A folder beside files that nothing may touch."""
    (tmp_path / "outside.txt").write_text("mine")
    return tmp_path / "root"


def tar(path: Path, members: list[tuple[str, bytes] | tarfile.TarInfo], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return path


def zipped(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.xz", "w:xz")]
)
def test_tar(tmp_path, target, suffix, mode):
    archive = tar(tmp_path / f"sound{suffix}", [special("a", tarfile.DIRTYPE), *SOUND.items()], mode)
    assert unpack(archive, target) == [target]
    assert files(target) == SOUND


def test_zip(tmp_path, target):
    archive = zipped(tmp_path / "sound.ZIP", [("a/", b""), *SOUND.items()])
    target.mkdir()
    (target / "there.txt").write_text("before")
    assert unpack(archive, target) == [target / "a", target / "top.txt"]
    assert files(target) == {**SOUND, "there.txt": b"before"}


def test_two_archives_share_a_folder(tmp_path, target):
    unpack(tar(tmp_path / "1.tar", [("kit/2011/a", b"1")]), target)
    assert unpack(tar(tmp_path / "2.tar", [("kit/2012/a", b"2")]), target) == [target / "kit/2012"]
    assert files(target) == {"kit/2011/a": b"1", "kit/2012/a": b"2"}


def test_goes_on_where_moving_was_interrupted(tmp_path, target, monkeypatch):
    """And from what a killed process left behind."""
    archive = tar(tmp_path / "sound.tar", list(SOUND.items()))
    target.mkdir()
    rename = Path.rename

    def interrupt(source, place):
        if place.name == "top.txt":
            raise KeyboardInterrupt
        return rename(source, place)

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, target)
    assert files(target) == {k: v for k, v in SOUND.items() if k != "top.txt"}
    monkeypatch.undo()
    (tmp_path / "sound.tar.unpacking").mkdir()
    (tmp_path / "sound.tar.unpacking/half").write_text("of a killed process")
    unpack(archive, target)
    assert files(target) == SOUND


def test_a_file_of_the_user_is_not_replaced(tmp_path, target):
    (target / "a").mkdir(parents=True)
    (target / "a/x.txt").write_text("corrected by hand")
    with pytest.raises(SegfolioError, match=r"a/x\.txt is there and is not that of the archive; move it away"):
        unpack(tar(tmp_path / "sound.tar", list(SOUND.items())), target)
    assert (target / "a/x.txt").read_text() == "corrected by hand"


SYMLINK = zipfile.ZipInfo("link")
SYMLINK.external_attr = (stat.S_IFLNK | 0o777) << 16
LEADS_OUT = "leads out of the folder it is unpacked into"
NO_FILE = "is a link or a device, expected files and folders alone"


@pytest.mark.parametrize(
    ("name", "members", "says"),
    [
        ("up.tar", [("a/../../outside.txt", b"evil")], f"its 'a/../../outside.txt' {LEADS_OUT}"),
        ("up.zip", [("../outside.txt", b"evil")], f"its '../outside.txt' {LEADS_OUT}"),
        ("backslash.zip", [("..\\outside.txt", b"evil")], LEADS_OUT),
        ("drive.tar", [("C:/outside.txt", b"evil")], LEADS_OUT),
        ("absolute.tar", [("/tmp/outside.txt", b"evil")], f"its '/tmp/outside.txt' {LEADS_OUT}"),
        ("absolute.zip", [("/tmp/outside.txt", b"evil")], f"its '/tmp/outside.txt' {LEADS_OUT}"),
        ("link.tar", [special("l", tarfile.SYMTYPE, ".."), ("l/outside.txt", b"evil")], f"its 'l' {NO_FILE}"),
        ("link.zip", [(SYMLINK, b"../outside.txt")], f"its 'link' {NO_FILE}"),
        ("hard.tar", [special("h", tarfile.LNKTYPE, "../outside.txt"), ("h", b"evil")], f"its 'h' {NO_FILE}"),
        ("device.tar", [special("d", tarfile.CHRTYPE)], f"its 'd' {NO_FILE}"),
        ("pipe.tar", [special("p", tarfile.FIFOTYPE)], f"its 'p' {NO_FILE}"),
        ("twice.tar", [("a", b"1"), ("b", b""), ("a", b"2")], "it holds 'a' twice"),
        ("both.tar", [("a", b"1"), ("a/b", b"2")], "both.tar cannot be unpacked"),
        ("many.zip", [(f"{i}", b"") for i in range(11)], "it holds more than 10 files"),
        ("bomb.zip", [("zeros", bytes(200_000))], "it unpacks to more than 100 times its size"),
        ("bomb.tar.xz", [("zeros", bytes(200_000))], "it unpacks to more than 100 times its size"),
    ],
)
def test_hostile(tmp_path, target, monkeypatch, name, members, says):
    monkeypatch.setattr(module, "MAX_FILES", 10)
    monkeypatch.setattr(module, "ALWAYS_BYTES", 1000)
    sound = [("sound.txt", b"first")]
    archive = (
        zipped(tmp_path / name, sound + members)
        if name.endswith("zip")
        else tar(tmp_path / name, sound + members, "w:xz" if name.endswith("xz") else "w")
    )
    before = files(tmp_path)
    with pytest.raises(SegfolioError, match=re.escape(says)):
        unpack(archive, target)
    assert files(tmp_path) == before
    assert not target.exists()
    assert sorted(os.listdir(tmp_path)) == sorted([name, "outside.txt"])


@pytest.mark.parametrize("name", ["cut.tar", "cut.tar.gz", "cut.tar.xz", "cut.zip"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_truncated(tmp_path, target, name, kept):
    members = [("a/noise", NOISE), ("a/more", NOISE)]
    mode = {".gz": "w:gz", ".xz": "w:xz"}.get(Path(name).suffix, "w")
    archive = zipped(tmp_path / name, members) if name.endswith("zip") else tar(tmp_path / name, members, mode)
    archive.write_bytes(archive.read_bytes()[: int(kept * archive.stat().st_size)])
    with pytest.raises(SegfolioError, match=f"{name} cannot be unpacked into"):
        unpack(archive, target)
    assert not target.exists()


def test_a_damaged_member_is_told(tmp_path, target):
    archive = zipped(tmp_path / "bad.zip", [("noise", NOISE)])
    content = bytearray(archive.read_bytes())
    content[1000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(SegfolioError, match=r"bad\.zip cannot be unpacked into .*(CRC|distance|invalid)"):
        unpack(archive, target)


def test_a_zip_that_does_not_fit_is_not_begun(tmp_path, target, monkeypatch):
    archive = zipped(tmp_path / "big.zip", [("noise", NOISE)])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(NOISE) - 1))
    with pytest.raises(SegfolioError, match=r"unpacks to 0\.0 GB, but 0\.0 GB are free there; make room"):
        unpack(archive, target)
    assert not target.exists()
