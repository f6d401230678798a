"""`segfolio track`: objects that are prompted in frames of a video, followed through all of it."""

import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from tqdm import tqdm

from segfolio.data.videos import Video, open_video
from segfolio.errors import SegfolioError
from segfolio.files import OutputFolder
from segfolio.inference.prompting import EmbeddedImages, embed
from segfolio.inference.track import Tracker
from segfolio.layers.tracking import TrackingNetwork
from segfolio.ledger.command import Parser
from segfolio.prompting.network import promptable
from segfolio.quiet import quiet
from segfolio.table import table
from segfolio.track.files import Written
from segfolio.track.kept import Kept, State, alone, origin_of, restore
from segfolio.track.passes import Direction, Following, Pass, passes
from segfolio.track.prompts import Said, files_of, read_prompts
from segfolio.words import counted


def track(arguments: Sequence[str]) -> None:
    """`--ckpt_path FILE --video V --prompts FILE [--direction forwards|backwards|both] [--output DIR]`.

    Raises:
        SegfolioError: a mistake in the arguments or the prompts, a network that is not to be had or does not follow
            objects, a video that cannot be opened; a frame that cannot be read, when the others are written.
    """
    quiet()
    given, changes = _parsed(arguments)
    torch.set_float32_matmul_precision("high")
    family, beside = promptable("track", given.config, given.ckpt_path, changes)
    network = family.network
    if not isinstance(network, TrackingNetwork):
        raise SegfolioError(
            f"{type(network).__name__} of {given.ckpt_path or given.config} answers to prompts, but does not follow "
            "objects through a video; give a checkpoint or a config of SAM 2"
        )
    video = open_video(given.video, family.image_space, given.exact)
    said = read_prompts(given.prompts, video)
    folder = OutputFolder(given.output or beside / "tracked", lambda: [*video.files(), *files_of(given.prompts)])
    origin = origin_of(video, said, family, direction=given.direction, exact=given.exact)
    family.to("cuda" if torch.cuda.is_available() else "cpu")
    with alone(folder):
        kept, written = Kept(folder, origin), Written(folder, video, family.image_space)
        unreadable = _followed(family, video, passes(given.direction, said, len(video)), kept, written)
        seen = written.finish()
    print(table(("object", "prompts", "frames"), _rows(said, seen), right=(0, 1, 2)))
    print(f"id maps, masks and overlays: {folder.root}")
    if unreadable:
        raise SegfolioError(f"{unreadable[0]}; what was tracked without it is in {folder.root}")


def _followed(family: Any, video: Video, ways: Sequence[Pass], kept: Kept, written: Written) -> tuple[str, ...]:
    """Go through a video, from where it was left; returns what is said of frames that cannot be read."""
    device = next(family.network.parameters()).device
    state = kept.load(device)

    def embedded(frame: Tensor) -> EmbeddedImages:
        return embed(family.network, family.normalize, frame, [video.size], bicubic=True)

    before = sum(len(way.frames) for way in ways[: state.passes]) + state.frames
    total, start, count = sum(len(way.frames) for way in ways), time.perf_counter(), 0
    with tqdm(total=total, initial=before, desc="tracking", unit=" frames", disable=None) as bar:
        for number, way in enumerate(ways):
            if number < state.passes:
                continue
            tracker = restore(Tracker(family.network, len(video)), state)
            following = Following(video, way, tracker, embedded, device, state.frames)
            for frame in following:
                written.write(frame, beside=number > 0)
                unreadable = state.unreadable + tuple(following.unreadable)
                kept.now_and_then(State(number, following.done, unreadable), tracker)
                count += 1
                bar.update()
            state = State(number + 1, 0, state.unreadable + tuple(following.unreadable))
            kept.put(state)
    if count:
        print(f"{counted(count, 'frame')}, {count / (time.perf_counter() - start):.2f} per second")
    return state.unreadable


def _rows(said: Sequence[Said], seen: Any) -> list[tuple[int, int, int]]:
    numbers = sorted({one.object for one in said})
    return [(number, sum(one.object == number for one in said), seen[number]) for number in numbers]


def _parsed(arguments: Sequence[str]) -> tuple[Namespace, list[str]]:
    parser = Parser("track")
    parser.add_argument("--ckpt_path", metavar="FILE", help="a checkpoint of a run, or the run's folder")
    parser.add_argument("-c", "--config", metavar="CONFIG", help="an experiment, as of SAM 2 with released weights")
    parser.add_argument("--video", type=Path, metavar="V", required=True, help="a folder of frames, or a video file")
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        required=True,
        help='what is meant: [{"frame": 0, "object": 1, "points": [[X, Y], [X, Y, 0]], "box": [X1, Y1, X2, Y2]}, '
        '{"frame": 9, "object": 2, "mask": "PNG"}, ...], where mask may also be run lengths or polygons of COCO',
    )
    parser.add_argument(
        "--direction",
        choices=get_args(Direction),
        default="forwards",
        help="how the video is gone through, from the first prompt of each object that is met on the way",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="decode a video file by PyAV (the extra `video`), which seeks exactly and names each damaged frame",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to; tracked/ in the run's folder, or here")
    parser.epilog = (
        "A further prompt for an object, in a frame that comes later on the way, corrects it from there on. A run that "
        "was stopped goes on when it is given again. Keys of the model can be given as well: "
        "--model.init_args.architecture.init_args.weights FILE"
    )
    given, changes = parser.parse_known_args(arguments)
    if wrong := [change for change in changes if change.startswith("-") and not change.startswith("--model.")]:
        parser.error(f"unrecognized arguments: {wrong[0]}")
    return given, changes
