"""Videos: frames in their order from folders and files, and what is said of those that cannot be read."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from segfolio.data.formats.images import write_image
from segfolio.data.image_space import ImageSpace
from segfolio.data.videos import FrameFolder, UnreadableFrame, Video, VideoFile, gaps, open_video
from segfolio.errors import SegfolioError
from tests.fake.video import SIZE, frame, number_of, write_file, write_folder

FRAMES = 100


@pytest.fixture(scope="module", params=[".mp4", ".avi", ".webm"])
def file(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / f"a{request.param}"
    write_file(path, FRAMES)
    return path


def test_a_file_has_its_frames_in_rgb(file: Path) -> None:
    video = open_video(file)
    assert (len(video), video.size, video.rate) == (FRAMES, SIZE, 25)
    assert (video.names[0], video.names[-1]) == ("00000", "00099")
    assert [number_of(pixels) for pixels in video] == list(range(FRAMES))
    color = np.zeros((40, 64, 3), np.uint8)
    color[..., 0] = 255
    writer = cv2.VideoWriter(str(red := file.with_stem("red")), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 40))
    writer.write(color[..., ::-1])
    writer.release()
    if file.suffix == ".avi":
        assert open_video(red)[0].mean((0, 1)) == pytest.approx([255, 0, 0], abs=6)


@pytest.mark.parametrize("order", ["backwards", "every fourth", "any"])
def test_frames_come_in_any_order(file: Path, order: str) -> None:
    places = list(range(FRAMES))
    wanted = {
        "backwards": places[::-1],
        "every fourth": places[::4],
        "any": np.random.default_rng(0).permutation(places).tolist(),
    }[order]
    video = open_video(file)
    assert [number_of(video[place]) for place in wanted] == wanted
    assert number_of(video[-1]) == FRAMES - 1
    assert [number_of(pixels) for pixels in video[3:5]] == [3, 4]
    with pytest.raises(IndexError):
        video[FRAMES]


def test_few_frames_are_in_memory_and_each_is_decoded_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    decode = VideoFile._decode
    monkeypatch.setattr(VideoFile, "_decode", lambda self, first: [decoded.append(self._next), decode(self, first)])
    for wanted in (range(FRAMES), range(FRAMES)[::-1]):
        video = VideoFile(file)
        video.size  # noqa: B018
        decoded.clear()
        held = []
        for place in wanted:
            video[place]
            held.append(len(video._recent))
        assert max(held) <= 17
        assert len(decoded) <= FRAMES + 1
        assert set(range(1, FRAMES)) <= set(decoded)


def test_a_file_travels_to_a_worker_and_goes_on_there(file: Path) -> None:
    video = open_video(file)
    video[5]
    other = pickle.loads(pickle.dumps(video))
    assert [number_of(each[6]) for each in (other, video)] == [6, 6]


def test_threads_read_one_file(file: Path) -> None:
    video = open_video(file)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda place: number_of(video[place]), range(FRAMES))) == list(range(FRAMES))


def test_a_folder_is_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    write_folder(tmp_path, [f"frame_{number}.png" for number in range(12)])
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".hidden.png").write_text("")
    video = open_video(tmp_path)
    assert video.names[1:3] == ["frame_1", "frame_2"]
    assert [number_of(pixels) for pixels in video] == list(range(12))
    assert (video.size, video.rate) == (SIZE, None)


def test_frames_of_other_spaces_are_read_as_images_are(tmp_path: Path) -> None:
    for name in ("0", "1"):
        np.save(tmp_path / f"{name}.npy", np.zeros((20, 30, 5), np.float32))
    video = open_video(tmp_path, ImageSpace(5, "float32"))
    assert video[1].shape == (20, 30, 5)
    write_file(tmp_path / "a.mp4", 2)
    with pytest.raises(
        SegfolioError, match=r"a\.mp4 is of uint8 values, expected float32 .*; give the frames as a fold"
    ):
        open_video(tmp_path / "a.mp4", ImageSpace(5, "float32"))


def damaged(path: Path, kept: float, to: float = 1.0, zeroed: bool = False) -> Path:
    """A copy without the bytes from one part of it to another, or with zeros in their place."""
    data = path.read_bytes()
    start, end = int(kept * len(data)), int(to * len(data))
    other = path.with_stem("damaged")
    other.write_bytes(data[:start] + bytes((end - start) * zeroed) + data[end:])
    return other


def readable(video: Video) -> tuple[int, UnreadableFrame]:
    """How many frames there are before the one that cannot be read, and what is said of it."""
    place = 0
    with pytest.raises(UnreadableFrame) as error:
        for place, _ in enumerate(video, 1):  # noqa: B007
            pass
    return place, error.value


def test_a_file_that_ends_early_names_the_frame_and_gives_those_before_it(file: Path) -> None:
    bad = damaged(file, 0.6)
    if file.suffix == ".mp4":  # whose index comes last
        with pytest.raises(SegfolioError, match=r"damaged\.mp4 cannot be opened: it is damaged, cut short or no video"):
            open_video(bad)
        return
    video = open_video(bad)
    if file.suffix == ".webm":  # where nothing tells how many there were
        assert 0.4 * FRAMES < len(video) < 0.8 * FRAMES
        return
    place, error = readable(video)
    assert 0.4 * FRAMES < place < 0.8 * FRAMES
    assert error.frame == place
    assert f"damaged.avi: frame {place} of 100 cannot be decoded: the file ends early" in str(error)


def test_a_file_that_is_damaged_in_the_middle_names_the_frame(tmp_path: Path) -> None:
    write_file(tmp_path / "a.mp4", FRAMES)
    place, error = readable(open_video(damaged(tmp_path / "a.mp4", 0.4, 0.6, zeroed=True)))
    assert 0.3 * FRAMES < place < 0.6 * FRAMES
    assert error.frame == place
    assert f"frame {place} of 100 " in str(error)
    assert pickle.loads(pickle.dumps(error)).frame == place
    write_file(tmp_path / "a.avi", FRAMES)  # the decoder leaves frames out, and no time tells
    place, error = readable(open_video(damaged(tmp_path / "a.avi", 0.4, 0.6, zeroed=True)))
    assert 0.7 * FRAMES < place < FRAMES
    assert "or is damaged there or before" in str(error)


class _Jumping:
    """A capture that has left a frame out, or whose frames come at times of their own."""

    def __init__(self, path: str, left_out: bool = True) -> None:
        self.at, self.numbers = -1, [0, 1, 2, 4, 5] if left_out else [0, 1, 2, 3, 4, 5]

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        times = {number: 40 * number + (100 if number > 2 else 0) for number in range(6)}
        known = {cv2.CAP_PROP_FPS: 25.0, cv2.CAP_PROP_FRAME_COUNT: 6.0}
        return known[what] if what in known else float(times[self.numbers[self.at]])

    def grab(self) -> bool:
        self.at += 1
        return self.at < len(self.numbers)

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, frame(self.numbers[self.at])


def test_a_frame_that_the_decoder_left_out_is_known_by_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", _Jumping)
    place, error = readable(VideoFile(Path("a.mp4")))
    assert (place, error.frame) == (3, 3)
    assert str(error) == "a.mp4: frame 3 of 6 is damaged; copy or export the file again"


def test_times_that_jump_are_no_damage_where_no_frame_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda path: _Jumping(path, left_out=False))
    assert [number_of(pixels) for pixels in VideoFile(Path("a.mp4"))] == list(range(6))


def test_frames_of_different_sizes_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, ["0.png", "1.png", "2.png"])
    write_image(tmp_path / "1.png", frame(1, (40, 90)))
    with pytest.raises(
        SegfolioError, match=r"1 image of another size than the first frame of its video: \S+1\.png \(90x"
    ):
        open_video(tmp_path)
    place, error = readable(FrameFolder(tmp_path))
    assert (place, error.frame) == (1, 1)
    assert "frame 1 is 90x40 pixels, the first is 96x64; all frames of a video have one size" in str(error)


def test_a_damaged_frame_of_a_folder_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, ["0.jpg", "1.jpg", "2.jpg"])
    path = tmp_path / "1.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SegfolioError, match=r"1 image empty, cut short .*: \S+1\.jpg"):
        open_video(tmp_path)
    place, error = readable(FrameFolder(tmp_path))
    assert (place, error.frame) == (1, 1)
    assert "1.jpg is cut short" in str(error)


def test_names_that_leave_a_number_out_are_told(tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{number:05d}.jpg" for number in (0, 5, 10, 20, 25)])
    with pytest.warns(UserWarning, match=r"missing by the numbers .* between 00010 and 00020"):
        video = open_video(tmp_path)
    assert [number_of(pixels) for pixels in video] == [0, 1, 2, 3, 4]
    assert gaps(["a_1", "a_2", "a_9", "a_10"]) == [("a_2", "a_9")]
    assert gaps(["0", "5", "10"]) == gaps(["a1", "b9", "b10"]) == gaps(["start", "1", "9"]) == gaps(["7"]) == []


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name, said in (
        ("notes.txt", "it is none of these; expected a folder of frames or a video"),
        ("nowhere", "there is nothing; expected a folder of frames"),
        ("empty.mp4", "cannot be opened: it is damaged, cut short or no video"),
        ("folder", "holds no image"),
    ):
        with pytest.raises(SegfolioError, match=said):
            open_video(tmp_path / name)
    write_folder(tmp_path / "twice", ["1.png", "1.jpg"])
    with pytest.raises(SegfolioError, match=r"1\.jpg and \S+1\.png differ only in suffix"):
        open_video(tmp_path / "twice")


def test_a_real_video_as_frames(real_data: Path) -> None:
    """Every fifth frame of it, by its names."""
    video = open_video(real_data / "video" / "bedroom")
    assert video.names[:3] == ["00000", "00005", "00010"]
    assert len(video) > 20
    assert all(video[place].shape == (*video.size, 3) for place in (0, len(video) - 1))
    change = [np.abs(video[a].astype(int) - video[0]).mean() for a in (1, 20)]
    assert 0 < change[0] < change[1]
