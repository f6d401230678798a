"""SA-V: `sav_train/sav_000/*.mp4` with JSON, `sav_val/JPEGImages_24fps`, `sav_val/Annotations_6fps`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfolio.data.formats import rle
from segfolio.data.formats.images import write_id_map
from tests.fake import video

STEP = 4
FRAMES = 10  # of a video, of which 0, 4 and 8 are annotated


def masks(frame: int, shift: int = 0) -> NDArray[np.bool_]:
    """`[3, H, W]`: a square that moves, one within it, and one that is there from frame 4 on."""
    found = np.zeros((3, *video.SIZE), np.bool_)
    found[0, 20:44, shift + 2 * frame : shift + 2 * frame + 24] = True
    found[1, 28:36, shift + 2 * frame + 8 : shift + 2 * frame + 16] = True
    found[2, 48:56, 60:70] = frame >= STEP
    return found


def annotation(name: str, shift: int) -> dict[str, Any]:
    """What the JSON says of one video."""
    height, width = video.SIZE
    frames = [[rle.to_json(code) for code in rle.encode(masks(frame, shift))] for frame in range(0, FRAMES, STEP)]
    head = {"video_id": name, "video_duration": FRAMES / 24, "video_frame_count": float(FRAMES)}
    size = {"video_height": float(height), "video_width": float(width)}
    return {**head, **size, "video_split": "train", "masklet": frames, "masklet_id": [0, 1, 2], "masklet_num": 3}


def write(root: Path) -> None:
    """The first training video has automatic masklets, too: the same, 20 pixels to the right."""
    folder = root / "sav_train" / "sav_000"
    folder.mkdir(parents=True)
    for name in ("sav_000001", "sav_000002"):
        video.write_file(folder / f"{name}.mp4", FRAMES)
        (folder / f"{name}_manual.json").write_text(json.dumps(annotation(name, 0)))
    (folder / "sav_000001_auto.json").write_text(json.dumps(annotation("sav_000001", 20)))
    for split in ("val", "test"):
        part, name = root / f"sav_{split}", f"sav_{split}_1"
        video.write_folder(part / "JPEGImages_24fps" / name, [f"{frame:05d}.jpg" for frame in range(FRAMES)])
        for frame in range(0, FRAMES, STEP):
            for number, mask in enumerate(masks(frame)):
                path = part / "Annotations_6fps" / name / f"{number:03d}" / f"{frame:05d}.png"
                write_id_map(path, 255 * mask.astype(np.uint8))
        (part / f"sav_{split}.txt").write_text(f"{name}\n")
