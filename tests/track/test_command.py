"""`segfolio track`: from a video and prompts to id maps, masks and pictures; killed and gone on; and its mistakes."""

import fcntl
import gc
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from segfolio.architectures.promptable.sam import SAM
from segfolio.data.formats import rle
from segfolio.data.formats.images import read_id_map, read_image, write_image
from segfolio.data.sample import to_image
from segfolio.data.videos import open_video
from segfolio.inference.prompting import EmbeddedImages, Embedder
from segfolio.inference.track import Tracked, Tracker
from segfolio.track.command import track
from segfolio.track.files import Written
from segfolio.track.kept import Kept
from segfolio.track.passes import Frame
from segfolio.track.prompts import read_prompts, together
from tests.fake.video import SIZE, write_file, write_folder
from tests.track.following import a_network, write_config

FRAMES = 9
MASK = np.zeros(SIZE, np.bool_)
MASK[10:30, 20:50] = True
PROMPTS: list[dict[str, Any]] = [
    {"frame": 2, "object": 4, "points": [[50, 30], [10, 10, 0]]},
    {"frame": 2, "object": 200, "mask": rle.to_json(rle.encode(MASK[None])[0])},
    {"frame": 5, "object": 3, "box": [40, 10, 80, 50]},
    {"frame": 6, "object": 4, "points": [[80, 50, 0]]},
]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, a video as frames and as a file, and prompts."""
    folder = tmp_path_factory.mktemp("given")
    write_config(folder)
    write_folder(folder / "park", [f"{number:05d}.jpg" for number in range(FRAMES)])
    write_file(folder / "street.mp4", FRAMES)
    (folder / "prompts.json").write_text(json.dumps(PROMPTS))
    return folder


def command(given: Path, *more: object, video: str | Path = "park", prompts: str | Path = "prompts.json") -> list[Any]:
    asked = ["-c", given / "sam2.yaml", "--video", given / video, "--prompts", given / prompts]
    return ["track", *asked, "--output=out", *more]


def masks_of(folder: str | Path) -> dict[tuple[int, int], np.ndarray]:
    """By frame and object."""
    results = json.loads(Path(folder, "instances.json").read_text())
    return {
        (int(x["image_id"]), x["track_id"]): rle.decode([rle.from_segmentation(x["segmentation"], SIZE)], SIZE)[0]
        for x in results
    }


def by_hand(given: Path, backwards: bool, start: int, stop: int, skip: tuple[int, ...] = ()) -> dict[Any, Tracked]:
    """What a tracker answers that is given all but some of the prompts, frame by frame, corrections after what was
    followed to them."""
    video, network = open_video(given / "park"), a_network()
    said = [one for place, one in enumerate(read_prompts(given / "prompts.json", video)) if place not in skip]
    tracker, embedder, found = Tracker(network, FRAMES), Embedder(network, bicubic=True), dict[Any, Tracked]()
    for frame in range(start, stop, -1 if backwards else 1):
        image = embedder.embedded(to_image(video[frame]).as_subclass(Tensor)[None], [SIZE])
        parts = [tracker.follow(frame, image, backwards)] if tracker.objects else []
        asked = together([one for one in said if one.frame == frame], SIZE)
        parts += [tracker.prompt(frame, image, prompts) for prompts in asked]
        for part in parts:
            for number, mask in zip(part.objects, part.masks, strict=True):
                found[frame, number] = EmbeddedImages.enlarge(image, mask[None], 0)[0].numpy()
    return found


def assert_same(found: dict[Any, np.ndarray], expected: dict[Any, Any]) -> None:
    """But where a logit is next to 0."""
    seen = {key for key, logits in expected.items() if (logits > 0).any()}
    assert len(seen) > 0.8 * len(expected)  # not equal because there is nothing
    assert seen == found.keys()
    for key in seen:
        assert ((expected[key] > 0) == found[key])[abs(expected[key]) > 1e-4].all(), key


def test_objects_are_followed_as_a_tracker_follows_them(segfolio, given: Path, capsys) -> None:
    """Also when they come in mid-stream, and are corrected in a later frame."""
    assert segfolio(*command(given)) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    found = masks_of("out")
    with torch.no_grad():
        assert_same(found, by_hand(given, False, 2, FRAMES))
    assert "id maps, masks and overlays: out" in printed
    assert re.search(r"9 frames, [\d.]+ per second", printed)
    rows = [line.split() for line in printed.splitlines() if re.fullmatch(r"[\d ]+", line)]
    seen = {number: sum(key[1] == number for key in found) for number in (3, 4, 200)}
    assert rows == [["3", "1", f"{seen[3]}"], ["4", "2", f"{seen[4]}"], ["200", "1", f"{seen[200]}"]]


def test_id_maps_overlays_and_results_are_of_the_same_masks(segfolio, given: Path, capsys) -> None:
    assert segfolio(*command(given)) == 0, capsys.readouterr().err
    found = masks_of("out")
    for frame in range(FRAMES):
        masks = {number: mask for (place, number), mask in found.items() if place == frame}
        expected = np.zeros(SIZE, np.uint8)
        for number, mask in sorted(masks.items(), key=lambda pair: (-pair[1].sum(), pair[0])):
            expected[mask] = number  # of two the smaller is seen
        ids = read_id_map(Path(f"out/ids/{frame:05d}.png"))
        assert (ids == expected).all()
        assert set(json.loads(Path(f"out/masks/{frame:05d}.json").read_text())) == {f"{number}" for number in masks}
        overlay, pixels = (read_image(folder / f"{frame:05d}.jpg") for folder in (Path("out/overlay"), given / "park"))
        changed = abs(overlay.astype(int) - pixels).sum(2) > 60
        assert changed[ids > 0].mean() > 0.5 if (ids > 0).any() else not changed.any()
    film = open_video(Path("out/overlay.mp4"))
    assert (len(film), film.size, film.rate) == (FRAMES, SIZE, 24)
    with Path("out/ids/00008.png").open("rb") as file:
        assert file.read(26)[25] == 3  # a palette
    for result in json.loads(Path("out/instances.json").read_text()):
        assert result["bbox"] == rle.boxes([rle.from_segmentation(result["segmentation"], SIZE)])[0].tolist()
        assert 0.9 < result["score"] <= 1


def test_backwards_an_object_is_followed_from_its_last_prompt(segfolio, given: Path, capsys) -> None:
    assert segfolio(*command(given, "--direction=backwards")) == 0, capsys.readouterr().err
    with torch.no_grad():
        assert_same(masks_of("out"), by_hand(given, True, 6, -1))


def test_both_ways_an_object_is_followed_from_its_first_prompt(segfolio, given: Path, capsys) -> None:
    """What is found forwards stays where an object of a later frame is followed back through it."""
    assert segfolio(*command(given, "--direction=both")) == 0, capsys.readouterr().err
    with torch.no_grad():
        expected = {**by_hand(given, True, 5, -1, skip=(3,)), **by_hand(given, False, 2, FRAMES)}
    assert_same(masks_of("out"), expected)
    assert {key[0] for key in expected if key[1] == 3} == set(range(FRAMES))


def test_a_correction_changes_only_what_follows_and_only_its_object(segfolio, given: Path, capsys) -> None:
    assert segfolio(*command(given)) == 0, capsys.readouterr().err
    corrected = masks_of("out")
    Path("fewer.json").write_text(json.dumps(PROMPTS[:3]))
    assert segfolio(*command(given, prompts=Path("fewer.json").absolute()), "--output=other") == 0
    before = masks_of("other")
    differ = {
        key for key in corrected.keys() | before.keys() if not np.array_equal(corrected.get(key), before.get(key))
    }
    assert differ
    assert {number for _, number in differ} == {4}
    assert min(frame for frame, _ in differ) == 6


def test_a_file_is_followed_as_the_frames_that_are_decoded_from_it(segfolio, given: Path, capsys) -> None:
    for number, pixels in enumerate(open_video(given / "street.mp4")):
        write_image(Path(f"frames/{number:05d}.png"), pixels)
    assert segfolio(*command(given, "--direction=both", video="street.mp4")) == 0, capsys.readouterr().err
    found = masks_of("out")
    assert open_video(Path("out/overlay.mp4")).rate == 25
    assert segfolio(*command(given, "--direction=both", "--output=other", video=Path("frames").absolute())) == 0
    expected = masks_of("other")
    assert found.keys() == expected.keys()
    assert all((found[key] == mask).all() for key, mask in expected.items())


def test_a_file_that_is_decoded_exactly_gives_the_same(segfolio, given: Path, capsys) -> None:
    """Of which OpenCV's decoding is exact as well."""
    pytest.importorskip("av")
    asked = command(given, "--direction=both", video="street.mp4")
    assert segfolio(*asked) == 0, capsys.readouterr().err
    assert segfolio(*asked, "--exact") == 2
    assert "with another decoder; give another --output" in capsys.readouterr().err
    assert segfolio(*asked, "--exact", "--output=other") == 0
    found, expected = masks_of("out"), masks_of("other")
    assert found.keys() == expected.keys()
    assert all((found[key] == mask).all() for key, mask in expected.items())


def test_what_to_install_to_decode_exactly_is_told(segfolio, given: Path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert segfolio(*command(given, video="street.mp4"), "--exact") == 2
    assert "install it with `pip install 'segfolio[video]'`, or leave it to OpenCV" in capsys.readouterr().err
    assert not Path("out").exists()


def content(folder: str) -> dict[str, bytes]:
    """All that is left, but for what is kept to go on."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name not in ("state.pt",)}


class Stop(Exception):
    pass


@pytest.mark.parametrize("stops", [(1, 4, 3), (10,)], ids=str)
def test_a_run_that_was_stopped_goes_on_to_the_same_files(
    segfolio, given: Path, monkeypatch: pytest.MonkeyPatch, capsys, stops: tuple[int, ...]
) -> None:
    """It stops in the middle of what is written of a frame, with a tracker that was kept two frames ago or less; in the
    first pass or in the second."""
    asked = command(given, "--direction=both")
    assert segfolio(*asked, "--output=whole") == 0, capsys.readouterr().err
    write, written, kept = Written._write_map, list[int](), list[int]()

    def stopping(self: Written, *arguments: Any) -> None:
        if len(kept) < len(stops) and len(written) == stops[len(kept)]:
            raise Stop
        written.append(0)
        write(self, *arguments)

    put = Kept.put
    monkeypatch.setattr(Written, "_write_map", stopping)
    monkeypatch.setattr(
        Kept, "now_and_then", lambda self, state, tracker: None if state.frames % 3 else put(self, state, tracker)
    )
    total = 0
    for _ in stops:
        with pytest.raises(Stop):
            segfolio(*asked)
        total += len(written)
        kept.append(0)
        written.clear()
    assert segfolio(*asked) == 0, capsys.readouterr().err
    total += len(written)
    assert 15 <= total <= 15 + 2 * len(stops)  # what had been done was not done again
    assert content("out") == content("whole")
    written.clear()
    assert segfolio(*asked) == 0
    assert not written
    assert content("out") == content("whole")


KILLED = """
import os, signal, sys
from segfolio.track import files, kept
kept.SECONDS = 0.0
write, count = files.Written.write, 0
def killing(self, frame, beside):
    global count
    write(self, frame, beside)
    count += 1
    if count == 6:
        os.kill(os.getpid(), signal.SIGKILL)
files.Written.write = killing
from segfolio.cli import main
main(sys.argv[1:])
"""


def test_a_run_that_was_killed_goes_on_to_the_same_files(segfolio, given: Path, capsys) -> None:
    asked = [str(each) for each in command(given)]
    ended = subprocess.run([sys.executable, "-c", KILLED, *asked], capture_output=True, timeout=300)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not Path("out/instances.json").exists()
    assert segfolio(*asked) == 0, capsys.readouterr().err
    assert re.search(r"\b4 frames, ", capsys.readouterr().out)
    assert segfolio(*asked, "--output=whole") == 0
    assert content("out") == content("whole")


def test_a_long_video_holds_no_more_than_a_short_one(segfolio, given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that are alive, and the state that is kept, when the shelves of a tracker are full."""
    write_folder(Path("long"), [f"{number:05d}.jpg" for number in range(64)])
    alive, kept, write = dict[int, int](), dict[int, int](), Written.write
    put = Kept.put

    def counting(self: Written, frame: Frame, beside: bool) -> None:
        write(self, frame, beside)
        if frame.place in (24, 63):
            gc.collect()
            tensors = [each for each in gc.get_objects() if isinstance(each, Tensor)]
            alive[frame.place] = sum(each.untyped_storage().nbytes() for each in tensors)

    def keeping(self: Kept, state: Any, tracker: Tracker | None = None) -> None:
        if tracker is not None and state.frames in (25, 64):
            put(self, state, tracker)
            kept[state.frames] = self._file.stat().st_size

    monkeypatch.setattr(Written, "write", counting)
    monkeypatch.setattr(Kept, "now_and_then", keeping)
    assert segfolio(*command(given, video=Path("long").absolute())) == 0
    assert alive[24] > 1e6
    assert alive[63] <= alive[24]
    assert kept[64] <= kept[25] + 1000  # numbers of more digits


LONG = """
import resource, sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from segfolio.cli import main
assert main(sys.argv[1:]) == 0
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_a_video_of_2000_frames_needs_no_more_memory_than_one_of_50(segfolio, given: Path) -> None:
    peaks = []
    for frames in (50, 2000):
        write_file(file := Path(f"{frames}.mp4"), frames)
        asked = [str(each) for each in command(given, f"--output={frames}", video=file.absolute())]
        ended = subprocess.run([sys.executable, "-c", LONG, *asked], capture_output=True, text=True, timeout=1200)
        assert ended.returncode == 0, ended.stderr
        peaks.append(int(ended.stdout.split()[-1]))
        assert len(list(Path(f"{frames}/ids").iterdir())) == frames
    assert peaks[1] < peaks[0] + 25, peaks  # MB


def test_a_real_video_is_followed(segfolio, given: Path, real_data: Path, capsys) -> None:
    """The path, with weights that have learnt nothing."""
    video = real_data / "video" / "bedroom"
    entries = [
        {"frame": "00000", "object": 1, "points": [[210, 350]]},
        {"frame": 10, "object": 2, "box": [300, 0, 500, 400]},
    ]
    Path("prompts.json").write_text(json.dumps(entries))
    asked = command(given, "--direction=both", video=video, prompts=Path("prompts.json").absolute())
    assert segfolio(*asked) == 0, capsys.readouterr().err
    names = sorted(path.stem for path in video.glob("*.jpg"))
    assert sorted(path.stem for path in Path("out/ids").iterdir()) == names
    size = read_image(video / "00000.jpg").shape[:2]
    found = np.stack([read_id_map(Path(f"out/ids/{name}.png")) for name in names])
    assert found.shape == (31, *size)
    assert set(np.unique(found)) == {0, 1, 2}
    assert len(open_video(Path("out/overlay.mp4"))) == 31


def a_damaged_file(folder: Path, frames: int, kept: float) -> Path:
    """A video that ends early."""
    write_file(folder / "whole.avi", frames)
    data = (folder / "whole.avi").read_bytes()
    (folder / "short.avi").write_bytes(data[: int(kept * len(data))])
    return (folder / "short.avi").absolute()


def a_damaged_folder(folder: Path, frame: int) -> Path:
    """A frame cannot be decoded, which its header does not tell."""
    write_folder(folder, [f"{number:05d}.png" for number in range(FRAMES)])
    path = folder / f"{frame:05d}.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    return folder.absolute()


def test_what_was_tracked_before_a_damaged_frame_is_kept(segfolio, given: Path, capsys) -> None:
    asked = command(given, video=a_damaged_folder(Path("damaged"), 5))
    for _ in range(2):  # also of a run that has come to its end
        assert segfolio(*asked) == 2
        error = capsys.readouterr().err
        assert re.search(
            r"damaged/00005.png cannot be decoded: it is damaged .*; what was tracked without it is in out", error
        )
        assert error.count("\n") == 1
        assert sorted(path.stem for path in Path("out/ids").iterdir()) == [f"{number:05d}" for number in range(5)]
    assert {key[0] for key in masks_of("out")} == {2, 3, 4}
    both = command(given, "--output=third", "--direction=both", video=Path("damaged").absolute())
    assert segfolio(*both) == 2
    assert {key[0] for key in masks_of("third")} == {0, 1, 2, 3, 4}  # also what comes back from the first prompt


def test_a_damaged_frame_before_all_prompts_is_named_and_passed_over(segfolio, given: Path, capsys) -> None:
    assert segfolio(*command(given, video=a_damaged_folder(Path("damaged"), 1))) == 2
    assert "damaged/00001.png cannot be decoded" in capsys.readouterr().err
    assert {key[0] for key in masks_of("out")} == set(range(2, FRAMES))


def test_a_file_that_ends_early_is_tracked_up_to_there(segfolio, given: Path, capsys) -> None:
    Path("prompts.json").write_text(json.dumps(PROMPTS[:1]))
    video = a_damaged_file(Path(), 20, 0.5)
    assert segfolio(*command(given, video=video, prompts=Path("prompts.json").absolute())) == 2
    error = capsys.readouterr().err
    found = sorted(key[0] for key in masks_of("out"))
    assert re.search(rf"short.avi: frame {found[-1] + 1} of \d+ cannot be decoded: the file ends early", error)
    assert found == list(range(2, found[-1] + 1))


def test_frames_of_different_sizes_are_told_before_anything_is_written(segfolio, given: Path, capsys) -> None:
    write_folder(Path("mixed"), [f"{number:05d}.jpg" for number in range(8)])
    cv2.imwrite("mixed/00006.jpg", np.zeros((32, 48, 3), np.uint8))
    assert segfolio(*command(given, video=Path("mixed").absolute())) == 2
    error = capsys.readouterr().err
    assert "of another size than the first frame of its video" in error
    assert "mixed/00006.jpg (48x32, the first is 96x64)" in error
    assert not Path("out").exists()


def test_names_that_leave_a_number_out_are_told_and_the_frames_followed(given: Path, segfolio, capsys) -> None:
    write_folder(Path("gap"), [f"{number:05d}.jpg" for number in (0, 1, 2, 3, 4, 8, 9)])
    Path("prompts.json").write_text(json.dumps([{"frame": "00008", "object": 1, "points": [[3, 4]]}]))
    asked = command(given, video=Path("gap").absolute(), prompts=Path("prompts.json").absolute())
    with pytest.warns(UserWarning, match=r"missing by the numbers of the names .*between 00004 and 00008"):
        track([str(each) for each in asked[1:]])
    assert {key[0] for key in masks_of("out")} == {8, 9}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--direction": "both"}, "out holds what was tracked before with another direction; give another --output"),
        ({"--video": "street.mp4"}, "with another video; give another --output"),
        ({"--prompts": "other.json"}, "with another file of prompts; give another --output"),
        ({"-c": "other.yaml"}, "with another network; give another --output"),
        ({"--model.init_args.architecture.init_args.fall_back": "false"}, "with another network; give another"),
    ],
)
def test_an_output_of_something_else_is_not_written_over(
    segfolio, given: Path, capsys, change: dict[str, str], said: str
) -> None:
    asked = command(given)
    Path("out").mkdir()
    assert segfolio(*asked) == 0, capsys.readouterr().err
    before = content("out")
    (given / "other.json").write_text(json.dumps(PROMPTS[:1]))
    ((key, value),) = change.items()
    other = yaml.safe_load((given / "sam2.yaml").read_text())
    other["model"]["init_args"]["architecture"]["init_args"]["weights"] = None
    (given / "other.yaml").write_text(yaml.safe_dump(other))
    assert segfolio(*asked, key, given / value if (given / value).exists() else value) == 2
    assert said in capsys.readouterr().err
    assert content("out") == before


def test_an_output_that_another_process_writes_to_is_told(segfolio, given: Path, capsys) -> None:
    Path("out").mkdir()
    with Path("out/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert segfolio(*command(given)) == 2
    assert "another `segfolio track` writes to out; wait for it, or give another --output" in capsys.readouterr().err


def test_a_video_that_is_read_is_not_written_over(segfolio, given: Path, capsys) -> None:
    write_folder(Path("overlay"), [f"{number:05d}.jpg" for number in range(FRAMES)])
    before = content("overlay")
    assert segfolio(*command(given, "--output=.", video=Path("overlay").absolute())) == 2
    assert "was read and would be written over; give another --output" in capsys.readouterr().err
    assert content("overlay") == before


def test_a_state_that_is_damaged_is_told(segfolio, given: Path, capsys) -> None:
    assert segfolio(*command(given)) == 0, capsys.readouterr().err
    origin = Path("out/tracking.json").read_text()
    Path("out/tracking.json").write_text(origin[:20])
    assert segfolio(*command(given)) == 2
    assert "out/tracking.json is damaged" in capsys.readouterr().err
    Path("out/tracking.json").write_text(origin)
    Path("out/state.pt").write_bytes(b"no state")
    assert segfolio(*command(given)) == 2
    assert "out/state.pt is damaged" in capsys.readouterr().err
    os.unlink("out/state.pt")
    assert segfolio(*command(given)) == 0


def test_the_network_of_a_run_on_videos_is_followed_with(segfolio, given: Path, tmp_path: Path, capsys) -> None:
    assert segfolio(*command(given)) == 0, capsys.readouterr().err
    folder = tmp_path / "video"
    folder.mkdir()
    config = write_config(folder, "Video")
    assert segfolio("fit", "-c", config, "--output=run", "--trainer.enable_progress_bar=false") == 0
    asked = ["--video", given / "park", "--prompts", given / "prompts.json"]
    assert segfolio("track", "--ckpt_path=run", *asked) == 0, capsys.readouterr().err
    assert segfolio("track", "-c", config, *asked, "--output=other") == 0, capsys.readouterr().err
    assert content("run/tracked") == content("out") == content("other")


def of_sam(given: Path) -> None:
    content = yaml.safe_load((given / "sam2.yaml").read_text())
    architecture = {"class_path": "segfolio.architectures.promptable.sam.SAM", "init_args": SAM.tiny}
    content["model"]["init_args"]["architecture"] = architecture
    Path("sam.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["-c", "sam.yaml"], "SAM of sam.yaml answers to prompts, but does not follow objects through a video; give a"),
        (["--video", "none"], "none: there is nothing; expected a folder of frames or a video (.mp4"),
        (["--video", "empty"], "empty holds no image"),
        (["--prompts", "empty.json"], "empty.json holds no prompts; say in at least one frame what is meant"),
        (["--prompts", "late.json"], "late.json, entry 0: there is no frame 99; frames are counted from 0, and"),
        (["--direction=up"], "--direction: invalid choice: 'up'"),
        (["--everything"], "unrecognized arguments: --everything; see `segfolio track --help`"),
        (["--output", "sam.yaml"], "sam.yaml is a file, expected a folder to write to; give another --output"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(segfolio, given: Path, capsys, more, said: str) -> None:
    of_sam(given)
    Path("empty").mkdir()
    Path("empty.json").write_text("[]")
    Path("late.json").write_text(json.dumps([{"frame": 99, "object": 1, "points": [[1, 1]]}]))
    assert segfolio(*command(given), *more) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("out").exists()
