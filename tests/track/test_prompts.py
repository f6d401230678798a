"""Files of prompts: what is read from them, and what is said of those that are wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segfolio.data.formats import rle
from segfolio.data.formats.images import write_id_map
from segfolio.data.prompts import PADDING
from segfolio.data.videos import FrameFolder
from segfolio.errors import SegfolioError
from segfolio.track.prompts import Said, files_of, read_prompts, together
from tests.fake.video import SIZE, write_folder

MASK = np.zeros(SIZE, np.bool_)
MASK[10:30, 20:50] = True


@pytest.fixture
def video(tmp_path: Path) -> FrameFolder:
    """Of frames 00000, 00005, 00010."""
    write_folder(tmp_path / "v", [f"{5 * number:05d}.png" for number in range(3)])
    return FrameFolder(tmp_path / "v")


def read(video: FrameFolder, *entries: Any) -> list[Said]:
    path = video.path.parent / "prompts.json"
    path.write_text(json.dumps(entries))
    return read_prompts(path, video)


def test_frames_are_given_by_place_or_name_and_points_are_on_the_object(video: FrameFolder) -> None:
    said = read(
        video,
        {"frame": 2, "object": 1, "points": [[3, 4], [5.5, 6, 0]]},
        {"frame": "00010", "object": 2, "box": [-3, 4, 20, 30]},
    )
    assert said == [Said(2, 1, ((3, 4, 1), (5.5, 6, 0))), Said(2, 2, box=(0, 4, 20, 30))]


def test_masks_are_files_run_lengths_or_polygons(video: FrameFolder) -> None:
    write_id_map(video.path.parent / "m.png", 3 * MASK.astype(np.uint8))
    mask = rle.encode(MASK[None])[0]
    said = read(
        video,
        {"frame": 0, "object": 1, "mask": "m.png"},
        {"frame": 0, "object": 2, "mask": rle.to_json(mask)},
        {"frame": 0, "object": 3, "mask": [[20, 10, 50, 10, 50, 30, 20, 30]]},
    )
    assert [one.mask for one in said] == [mask] * 3
    assert files_of(video.path.parent / "prompts.json")[1:] == [video.path.parent / "m.png"]


def test_a_tracker_is_asked_by_points_and_boxes_together_and_by_masks(video: FrameFolder) -> None:
    drawn, masks = together(
        read(
            video,
            {"frame": 0, "object": 4, "points": [[3, 4], [5, 6, 0]]},
            {"frame": 0, "object": 9, "mask": rle.to_json(rle.encode(MASK[None])[0])},
            {"frame": 0, "object": 2, "box": [1, 2, 30, 40]},
        ),
        SIZE,
    )
    assert drawn.of.tolist() == [4, 2]
    assert drawn.points is not None
    assert drawn.points[0].tolist() == [[3.5, 4.5], [5.5, 6.5]]
    assert drawn.kinds is not None
    assert drawn.kinds.tolist() == [[1, 0], [PADDING] * 2]
    assert drawn.boxes is not None
    assert drawn.boxes[1].tolist() == [1, 2, 30, 40]
    assert drawn.boxes[0].isnan().all()
    assert masks.of.tolist() == [9]
    assert masks.masks is not None
    assert (masks.masks[0].numpy() == MASK).all()
    for prompts in (drawn, masks):
        prompts.check(SIZE, "here")


WHERE = "entry 0: "


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"frame": 3}, "there is no frame 3; frames are counted from 0, and .*v has 3 frames"),
        ({"frame": -1}, "there is no frame -1"),
        ({"frame": True}, "there is no frame true"),
        ({"frame": "00003"}, "there is no frame '00003'; those of .*v are named 00000 to 00010, and a number without"),
        ({"object": 0}, "object is 0, expected a number from 1 to 254"),
        ({"object": 255}, "object is 255, expected a number from 1 to 254"),
        ({"object": "cat"}, 'object is "cat", expected a number from 1 to 254'),
        ({"pionts": [[1, 1]]}, "there is no key 'pionts'; did you mean 'points'?"),
        ({"x": 1}, "there is no key 'x'; expected frame, object, points, box or mask"),
        ({"points": [1, 1]}, r"points are \[1, 1\], expected a list of \[x, y\] or \[x, y, 1 or 0\]"),
        ({"points": [[1, 1, 2]]}, "the label of a click is 2, expected 1"),
        ({"points": [[96, 1]]}, "a click is at x 96, y 1, outside the image of 96x64 pixels"),
        ({"points": None, "box": [1, 2, 3]}, r"box is \[1, 2, 3\], expected \[left, top, right, bottom\]"),
        ({"points": None, "box": [9, 2, 9, 7]}, "a box is 9, 2, 9, 7; expected left, top, right, bottom"),
        ({"points": []}, "nothing is said of object 1; give points, a box or a mask"),
        ({"mask": "m.png"}, "object 1 has a mask, and points or a box; give the mask alone"),
        ({"points": None, "mask": "small.png"}, "the mask .*small.png is 48x32 pixels, the frames are 96x64"),
        ({"points": None, "mask": "empty.png"}, "the mask is empty; give one of a frame in which the object is seen"),
        ({"points": None, "mask": "none.png"}, ".*none.png cannot be read: no such file"),
        (
            {"points": None, "mask": {"size": [32, 48], "counts": [1536]}},
            r"the run lengths are of size \[32, 48\], but \[height, width\] of the image is \[64, 96\]",
        ),
    ],
)
def test_a_wrong_entry_is_named(video: FrameFolder, entry: dict[str, Any], said: str) -> None:
    folder = video.path.parent
    write_id_map(folder / "small.png", np.ones((32, 48), np.uint8))
    write_id_map(folder / "empty.png", np.zeros(SIZE, np.uint8))
    with pytest.raises(SegfolioError, match=WHERE + said):
        read(video, {"frame": 0, "object": 1, "points": [[1, 1]], **entry})


@pytest.mark.parametrize("key", ["frame", "object"])
def test_a_missing_key_is_named(video: FrameFolder, key: str) -> None:
    entry = {"frame": 0, "object": 1, "points": [[1, 1]]}
    del entry[key]
    with pytest.raises(SegfolioError, match=f"{WHERE}the key '{key}' is missing"):
        read(video, entry)


def test_two_prompts_of_one_object_in_one_frame_are_one_too_many(video: FrameFolder) -> None:
    one, other = ({"frame": frame, "object": 1, "points": [[1, 1]]} for frame in (1, "00005"))
    with pytest.raises(SegfolioError, match="entry 1: object 1 has two prompts in frame 00005; give all points and"):
        read(video, one, other)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[{", r"prompts.json is no JSON \(.*\); expected a list of prompts"),
        (b"\xff\xfe\x00", "prompts.json is no JSON"),
        (b'{"frame": 0}', "prompts.json holds no list of mappings; expected prompts as"),
        (b"[3]", "prompts.json holds no list of mappings"),
        (b"[]", "prompts.json holds no prompts; say in at least one frame what is meant"),
    ],
)
def test_a_file_that_is_no_list_of_prompts_is_told(video: FrameFolder, content: bytes, said: str) -> None:
    path = video.path.parent / "prompts.json"
    path.write_bytes(content)
    with pytest.raises(SegfolioError, match=said):
        read_prompts(path, video)


def test_a_file_that_is_not_there_is_told(video: FrameFolder) -> None:
    with pytest.raises(SegfolioError, match=r"no.json cannot be read: no such file or directory"):
        read_prompts(Path("no.json"), video)
