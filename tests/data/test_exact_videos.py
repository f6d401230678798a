"""Video files by PyAV: the frames that OpenCV has, each found by its time, and each damaged one named."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from segfolio.data.videos import UnreadableFrame, Video, VideoFile, open_video
from segfolio.errors import SegfolioError
from tests.fake.video import SIZE, number_of, write_file

FRAMES = 60


@pytest.fixture(scope="module", params=[".mp4", ".avi", ".webm"])
def file(request, tmp_path_factory) -> Path:
    pytest.importorskip("av")
    path = tmp_path_factory.mktemp("video") / f"a{request.param}"
    write_file(path, FRAMES)
    return path


def test_frames_are_those_of_opencv(file: Path) -> None:
    video, other = open_video(file, exact=True), VideoFile(file)
    assert (len(video), video.size, video.rate) == (FRAMES, SIZE, 25)
    assert video.names == other.names
    for ours, theirs in zip(video, other, strict=True):
        assert abs(ours.astype(int) - theirs).max() <= 2


@pytest.mark.parametrize("order", ["backwards", "every fourth", "any"])
def test_frames_come_in_any_order(file: Path, order: str) -> None:
    places = list(range(FRAMES))
    wanted = {
        "backwards": places[::-1],
        "every fourth": places[::4],
        "any": np.random.default_rng(0).permutation(places).tolist(),
    }[order]
    video, held = open_video(file, exact=True), []
    for place in wanted:
        assert number_of(video[place]) == place
        held.append(len(video._recent))  # type: ignore[attr-defined]
    assert max(held) <= 32
    assert number_of(pickle.loads(pickle.dumps(video))[7]) == 7


def unreadable(video: Video) -> list[int]:
    """The frames that cannot be read; the others are right."""
    found = []
    for place in range(len(video)):
        try:
            pixels = video[place]
        except UnreadableFrame as error:
            found.append((place, error.frame, str(error)))
        else:
            assert number_of(pixels) == place
    said = f"frame {{}} of {len(video)} is damaged; copy or export the file again"
    assert all(place == frame and said.format(place) in text for place, frame, text in found)
    return [place for place, *_ in found]


def test_each_damaged_frame_is_named_and_the_others_are_read(file: Path) -> None:
    """Of which OpenCV reads nothing beyond the first. Where packets are gone, as in AVI, the last are missing."""
    data = file.read_bytes()
    start, end = int(0.4 * len(data)), int(0.45 * len(data))
    bad = file.with_stem("damaged")
    bad.write_bytes(data[:start] + bytes(end - start) + data[end:])
    video = open_video(bad, exact=True)
    if file.suffix == ".mp4":
        found = unreadable(video)
        assert 0 < len(found) < 15
        assert found == list(range(found[0], found[-1] + 1))
        with pytest.raises(UnreadableFrame):
            [*VideoFile(bad)]
    elif file.suffix == ".avi":
        assert len(video) == FRAMES
        with pytest.raises(UnreadableFrame, match=f"frame {FRAMES - 1} of {FRAMES} is damaged"):
            video[FRAMES - 1]
    else:  # whose header says nothing
        assert 0.5 * FRAMES < len(video) < FRAMES


def test_a_video_that_is_turned_is_turned_as_opencv_does_it(tmp_path: Path) -> None:
    """As those of telephones are."""
    pytest.importorskip("av")
    write_file(tmp_path / "a.mp4", 3)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the matrix of the track's header
    quarter = (0, 1 << 16, 0, -(1 << 16) % 2**32, 0, 0, SIZE[0] << 16, 0, 1 << 30)
    data[at : at + 36] = b"".join(number.to_bytes(4) for number in quarter)
    (tmp_path / "turned.mp4").write_bytes(data)
    video, other = open_video(tmp_path / "turned.mp4", exact=True), VideoFile(tmp_path / "turned.mp4")
    assert video.size == other.size == SIZE[::-1]
    assert abs(video[1].astype(int) - other[1]).max() <= 2


def test_a_file_that_is_no_video_is_told(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(SegfolioError, match=r"a\.mp4 cannot be opened: it is damaged, cut short or no video"):
        open_video(tmp_path / "a.mp4", exact=True)


def test_what_to_install_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "a.mp4", 3)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SegfolioError, match=r"decoded exactly by PyAV; install it with `pip install 'segfolio\[video"):
        open_video(tmp_path / "a.mp4", exact=True)
    assert len(open_video(tmp_path / "a.mp4")) == 3
