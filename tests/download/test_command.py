"""`segfolio download`, from a publisher's archive to a dataset that is read."""

import fcntl
import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from segfolio.data.datasets import CamVid
from segfolio.download import command
from tests.fake import camvid


@pytest.fixture
def publisher(server, monkeypatch, tmp_path):
    """Serves CamVid in one archive, and a text; CamVid's `info` names both."""
    camvid.write(tmp_path / "original")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        file.add(tmp_path / "original", "CamVid")
    files = (server.offer("/v1/camvid.tar.gz?download=1", packed.getvalue(), "sets"), server.offer("/a%20text", b"law"))
    monkeypatch.setattr(CamVid, "info", replace(CamVid.info, files=files, access="More images by letter."))
    return server


def paths(server) -> list[str]:
    return [path for path, _ in server.asked]


def test_what_is_downloaded_is_read(segfolio, publisher, capsys, tmp_path):
    assert segfolio("download", "CamVid", "--root", "data") == 0
    out = capsys.readouterr().out
    assert "CamVid is in data: --data.root data" in out
    assert "More images by letter." in out
    downloaded, original = CamVid("data/sets/CamVid", "train"), CamVid(tmp_path / "original", "train")
    assert len(downloaded) == 4
    assert (downloaded[3].image == original[3].image).all()
    assert Path("data/a text").read_text() == "law"
    left = sorted(path.name for path in Path("data").rglob("*") if path.parent.name in ("data", ".download"))
    assert left == [".download", "a text", "camvid.tar.gz.done", "lock", "sets"]


def test_a_second_call_does_nothing(segfolio, publisher):
    assert [segfolio("download", "CamVid", "--root=data") for _ in range(2)] == [0, 0]
    assert paths(publisher) == ["/v1/camvid.tar.gz?download=1", "/a%20text"]


def test_what_was_removed_or_published_anew_comes_again(segfolio, publisher):
    segfolio("download", "CamVid", "--root=data")
    shutil.rmtree("data/sets")
    Path("data/a text").unlink()
    assert segfolio("download", "CamVid", "--root=data") == 0
    assert len(CamVid("data/sets/CamVid", "val")) == 2
    assert len(publisher.asked) == 4
    done = Path("data/.download/camvid.tar.gz.done")
    done.write_text(done.read_text().replace("sha256:", "sha256:0"))
    assert segfolio("download", "CamVid", "--root=data") == 0
    assert len(publisher.asked) == 5


def test_an_archive_fetched_by_hand_is_unpacked(segfolio, publisher):
    Path("data/.download").mkdir(parents=True)
    Path("data/.download/camvid.tar.gz").write_bytes(publisher.files["/v1/camvid.tar.gz?download=1"])
    assert segfolio("download", "CamVid", "--root=data") == 0
    assert len(CamVid("data/sets/CamVid", "test")) == 2
    assert paths(publisher) == ["/a%20text"]


def test_unpacking_that_was_interrupted_is_done_again(segfolio, publisher, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command, "write_atomically", interrupt)
        assert segfolio("download", "CamVid", "--root=data") == 130
    assert "the same command goes on where it stopped" in capsys.readouterr().err
    assert segfolio("download", "CamVid", "--root=data") == 0
    assert len(publisher.asked) == 2
    assert len(CamVid("data/sets/CamVid", "train")) == 4


def test_nothing_is_unpacked_of_an_archive_that_is_not_the_published_one(segfolio, publisher, capsys):
    publisher.files["/v1/camvid.tar.gz?download=1"] += b"more"
    assert segfolio("download", "CamVid", "--root=data") == 2
    assert "is not what was published" in capsys.readouterr().err
    assert [path.name for path in Path("data").rglob("*")] == [".download", "lock"]


def test_two_downloads_to_one_folder(segfolio, publisher, capsys):
    Path("data/.download").mkdir(parents=True)
    with Path("data/.download/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert segfolio("download", "CamVid", "--root=data") == 2
    assert "another `segfolio download` to data is at work" in capsys.readouterr().err
    assert publisher.asked == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["CamVid", "--root=data"],
            "CamVid cannot be fetched by a command: camvid.zip to DIR. Its terms are: personal and research use. The "
            f"page is {CamVid.info.url}",
        ),
        (["ISBI2012", "--root=data"], "ISBI 2012 EM cannot be fetched by a command: "),
        (["camvid", "--root=data"], "there is no dataset 'camvid'; did you mean CamVid?"),
        (["ImageNet22k", "--root=data"], "there is no dataset 'ImageNet22k'"),
        (["CamVid"], "the following arguments are required: --root"),
        ([], "the following arguments are required: NAME, --root"),
    ],
)
def test_a_mistake_is_answered_by_a_sentence(segfolio, monkeypatch, capsys, arguments, says):
    monkeypatch.setattr(CamVid, "info", replace(CamVid.info, files=(), access="camvid.zip to DIR."))
    assert segfolio("download", *arguments) == 2
    assert says in capsys.readouterr().err
    assert not Path("data").exists()


def test_a_root_that_is_a_file(segfolio, publisher, capsys):
    Path("data").write_text("")
    assert segfolio("download", "CamVid", "--root=data") == 2
    assert "data cannot be written: " in capsys.readouterr().err


def test_the_listing_says_how_to_get_the_files(segfolio, publisher, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(CamVid, "info", replace(CamVid.info, disk="0.6 GB"))
    assert segfolio("datasets") == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("CamVid "))
    assert row.split()[-3:] == ["0.6", "GB", "download"]
    note = next(block for block in out.split("\n\n") if block.startswith("CamVid: CamVid"))
    assert "  licence: personal and research use\n" in note
    assert "  get: segfolio download CamVid --root DIR\n  access: More images by letter." in note
