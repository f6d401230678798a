"""Servers as they are: each test says what the server does, and what is left on disk."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from segfolio.download.fetch import TRIES, fetch
from segfolio.errors import SegfolioError
from tests.download.conftest import serve, status

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)


@pytest.fixture
def file(server):
    return server.offer("/some/a.bin", CONTENT)


@pytest.fixture
def get(tmp_path):
    """Fetch to `a.bin`; returns the waits between the attempts."""

    def run(file):
        waits = []
        fetch(file, tmp_path / "a.bin", waits.append)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.bin": CONTENT}
        return waits

    return run


def ranges(server):
    return [wish for _, wish in server.asked]


def test_a_second_call_asks_for_nothing(server, file, get):
    assert get(file) == []
    assert get(file) == []
    assert ranges(server) == [None]


def test_a_broken_transfer_goes_on_where_it_broke(server, file, get):
    server.script = [serve(sent=100_000), serve(sent=50_000)]
    assert get(file) == [1, 1]
    assert ranges(server) == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_call_goes_on_where_an_interrupted_one_stopped(server, file, get, tmp_path):
    server.script = [serve(sent=100_000)]

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(file, tmp_path / "a.bin", interrupt)
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:100_000]
    assert not (tmp_path / "a.bin").exists()
    assert get(file) == []
    assert ranges(server) == [None, "bytes=100000-"]


def test_a_server_without_ranges_starts_again(server, file, get):
    server.script = [serve(sent=100_000), serve(ranges=False)]
    assert get(file) == [1]
    assert ranges(server) == [None, "bytes=100000-"]


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changes_between_two_attempts_is_not_mixed(server, file, get, if_range):
    """A server that knows If-Range sends the whole new file; of another one the checksum tells."""

    def old(handler):
        server.files["/some/a.bin"] = OTHER
        serve(sent=100_000)(handler)
        server.files["/some/a.bin"] = CONTENT

    server.script = [old, serve(if_range=if_range)]
    assert len(get(file)) == (1 if if_range else 2)
    assert ranges(server) == [None, "bytes=100000-"] + ([] if if_range else [None])


def test_without_an_etag_the_checksum_decides(server, file, get):
    server.script = [serve(sent=100_000, tag=""), serve(tag="")]
    assert get(file) == [1]
    assert ranges(server) == [None, "bytes=100000-"]


def test_a_weak_etag_is_not_asked_by(server, file, get):
    """RFC 9110 allows If-Range strong ones alone; this server would send the whole file."""
    server.script = [serve(sent=100_000, tag='W/"1"'), serve(tag='W/"2"')]
    assert get(file) == [1]
    assert ranges(server) == [None, "bytes=100000-"]


def test_a_part_that_is_longer_than_the_file_is_dropped(server, file, get, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(OTHER + b"more")
    assert get(file) == []
    assert ranges(server) == ["bytes=300004-", None]


def test_another_part_than_asked_for_is_not_taken(server, file, get):
    server.script = [serve(sent=100_000), status(206, **{"Content-Range": "bytes 0-9/300000"})]
    assert get(file) == [1, 1]


def test_a_length_that_is_too_long_does_no_harm(server, file, get):
    server.script = [serve(claimed=500)]
    assert get(file) == []


def test_a_length_that_is_too_short_is_a_wrong_file(server, file, get, tmp_path):
    server.script = [serve(claimed=-500)]
    with pytest.raises(SegfolioError, match=r"is not what was published: 299500 bytes with the sha256 "):
        get(file)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_down_for_a_while(server, file, get):
    server.script = [status(500), status(503), status(429)]
    assert get(file) == [1, 2, 4]


def test_a_redirect_is_followed(server, file, get):
    server.files["/old/a.bin"] = b""
    server.script = [status(302, Location=file.url)]
    assert get(replace(file, url=server.url("/old/a.bin"))) == []
    assert [path for path, _ in server.asked] == ["/old/a.bin", "/some/a.bin"]


def test_a_missing_file_is_not_asked_for_twice(server, file, get):
    server.script = [status(404)]
    with pytest.raises(SegfolioError, match=r"a\.bin cannot be fetched: the server answered 404 Not Found"):
        get(file)
    assert len(server.asked) == 1


def test_a_server_that_always_breaks_is_given_up(server, file, tmp_path):
    server.script = [serve(sent=1000, ranges=False)] * (TRIES + 1)
    waits = []
    with pytest.raises(SegfolioError, match=r"broke off at 1000 of 300000 bytes; the same command goes on"):
        fetch(file, tmp_path / "a.bin", waits.append)
    assert waits == [1, 1, 2, 4, 8, 16]
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:1000]


def test_nobody_answers(server, file, tmp_path):
    waits = []
    with pytest.raises(SegfolioError, match=r"could not be fetched: .*refused.*fetch the file by hand to"):
        fetch(replace(file, url="http://127.0.0.1:1/a.bin"), tmp_path / "a.bin", waits.append)
    assert waits == [1, 2, 4, 8, 16]


def test_another_file_than_published_is_not_kept(server, file, get, tmp_path):
    server.files["/some/a.bin"] = b"<html>please log in</html>"
    with pytest.raises(SegfolioError, match=r"26 bytes with the sha256 \w{64}, expected \w{64}; look whether"):
        get(file)
    assert list(tmp_path.iterdir()) == []


def test_another_file_in_its_place_is_left_alone(server, file, tmp_path):
    (tmp_path / "a.bin").write_bytes(OTHER)
    with pytest.raises(SegfolioError, match=r"a\.bin has the sha256 .* as published; remove it"):
        fetch(file, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == OTHER
    assert server.asked == []


@pytest.mark.parametrize(("unpack", "needed"), [(None, 300_000), ("", 600_000)])
def test_room_is_looked_for_before_a_byte_is_written(server, file, tmp_path, monkeypatch, unpack, needed):
    """An archive takes its room twice: its contents come beside it."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(SegfolioError, match=r"has 0\.0 GB free, expected 0\.0 GB for a\.bin; make room"):
        fetch(replace(file, unpack=unpack), tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").read_bytes() == b""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    fetch(replace(file, unpack=unpack), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
