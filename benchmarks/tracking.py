"""SAM 2.1-T following objects through a video, ours against transformers' `Sam2VideoModel` with the same weights.

    python -m benchmarks.tracking

One CPU thread, processor time, frame by frame in turns. 8 objects are clicked in the first frame of a video of
256 x 256 pixels and followed; what counts is the median of the frames from the 16th on, when all memory is full. Both
are measured in float32 and, as the release is run, under bfloat16's autocast. Weights are random, every object is seen,
and holes are not filled, as in transformers.

Both need the same products, about 25 (ours) and 29 billion multiply-adds a frame at 256 px: 8.6 are of the MLPs in the
attention to memory and 4.9 of that attention, for 8 objects, and 3.4 of Hiera. Ours is one batch where theirs is a loop
over objects, its first layer attends to the frame once for all, and values are projected after they were summed. In
float32 nothing else can be left out, hence less than 2.

`memory` is the most that tensors made by 100 frames hold at once; `frame 400 / frame 40` compares medians of ten frames
around each, ours alone.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel

from segfolio.architectures.promptable.sam2 import SAM2
from segfolio.data.prompts import Prompts
from segfolio.inference.prompting import EmbeddedImages
from segfolio.inference.track import Tracker
from segfolio.speed.measure import peak_bytes
from segfolio.weights.sam2 import under_our_names
from tests.architectures.promptable.transformers_sam import randomised
from tests.inference.transformers_tracker import TransformersTracker

FLOAT, LOW, LARGE = "a frame of 256 px, float32", "a frame of 256 px, bfloat16", "1024 px, 3 frames"
IMAGE, MEMORY, GROWTH = "an image of 1024 px", "memory", "frame 400 / frame 40"
AIMS = {FLOAT: ">= 2", LOW: ">= 2", MEMORY: ">= 2", LARGE: ">= 1", IMAGE: ">= 1", GROWTH: "<= 1.1"}
OBJECTS = 8
PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")


def networks(size: int) -> tuple[SAM2, Any]:
    config = Sam2VideoConfig(
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": {"model_type": "sam2_hiera_det_model", "image_size": [size, size]},
            "backbone_feature_sizes": [[size // stride] * 2 for stride in (4, 8, 16)],
        },
        prompt_encoder_config={"image_size": size},
        image_size=size,
        memory_attention_rope_feat_sizes=[size // 16] * 2,
    )
    theirs = randomised(Sam2VideoModel(config).eval())
    frequencies = theirs.shared_image_embedding.positional_embedding
    theirs.prompt_encoder.shared_embedding.positional_embedding.copy_(frequencies)
    theirs.mask_decoder.pred_obj_score_head.proj_out.bias.data.fill_(100)
    ours = SAM2(1, image_size=size).eval()
    ours.load_state_dict(under_our_names(theirs.state_dict()))
    return ours, theirs


class Ours:
    """Objects clicked in the first frame, then followed through one frame after the other."""

    def __init__(self, network: SAM2, video: torch.Tensor, points: torch.Tensor) -> None:
        self.network, self.video, self.points = network, video, points
        self.tracker = Tracker(network, len(video), holes=0)

    def frame(self, at: int) -> torch.Tensor:
        """Mask logits `[P, h, w]`."""
        image = self.network.embed(self.video[at : at + 1])
        embedded = EmbeddedImages(self.network, image, [(self.video.shape[2], self.video.shape[3])])
        if at == 0:
            of = torch.arange(len(self.points))
            self.tracker.prompt(0, embedded, Prompts(of, self.points[:, None], torch.ones_like(of)[:, None]))
        return self.tracker.follow(at, embedded).masks


class Theirs:
    def __init__(self, model: Any, video: torch.Tensor, points: torch.Tensor) -> None:
        self.points, self.tracker = points, TransformersTracker(model, video)

    def frame(self, at: int) -> torch.Tensor:
        if at == 0:
            for number, point in enumerate(self.points):
                self.tracker.points(0, number, point[None], torch.ones(1))
        return self.tracker.follow(at)[0]


def seconds(run: Callable[..., object], *given: int) -> float:
    start = time.process_time()
    run(*given)
    return time.process_time() - start


def in_turns(sides: dict[str, Ours | Theirs], frames: int, first: int) -> dict[str, float]:
    """Median seconds of a frame, from the `first` on."""
    taken = [{name: seconds(side.frame, at) for name, side in sides.items()} for at in range(frames)]
    return {name: median(each[name] for each in taken[first:]) for name in sides}


def sides(size: int, frames: int, objects: int) -> Callable[[], dict[str, Ours | Theirs]]:
    """What makes both sides anew, before any frame, of the same networks, video and points."""
    ours, theirs = networks(size)
    video, points = torch.randn(frames, 3, size, size), torch.rand(objects, 2) * size
    return lambda: {"ours": Ours(ours, video, points), "transformers": Theirs(theirs, video, points)}


def all_frames(side: Ours | Theirs, frames: int) -> Callable[[], None]:
    def run() -> None:
        for at in range(frames):
            side.frame(at)

    return run


def shown(case: str, found: dict[str, float], scale: float = 1e3, unit: str = "ms") -> float:
    """How many times more transformers needs."""
    print(f"{case}: " + ", ".join(f"{name} {scale * value:.0f} {unit}" for name, value in found.items()))
    return found["transformers"] / found["ours"]


def growth(network: SAM2, size: int) -> float:
    side = Ours(network, torch.randn(1, 3, size, size).expand(410, -1, -1, -1), torch.rand(OBJECTS, 2) * size)
    taken = [seconds(side.frame, at) for at in range(410)]
    return median(taken[395:405]) / median(taken[35:45])


def of_images(size: int) -> dict[str, float]:
    """Seconds of an image and a click."""
    ours, video = networks(size)
    theirs = Sam2Model(Sam2Config(**{name: video.config.to_dict()[name] for name in PARTS})).eval()
    theirs.load_state_dict(video.state_dict(), strict=False)
    image, point = torch.randn(1, 3, size, size), torch.full((1, 1, 2), size / 2)
    of, kinds = torch.zeros(1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.int64)

    def our_masks() -> torch.Tensor:
        return EmbeddedImages(ours, ours.embed(image), [(size, size)]).ask(Prompts(of, point, kinds), of).masks

    def their_masks() -> torch.Tensor:
        return theirs(pixel_values=image, input_points=point[None] - 0.5, input_labels=kinds[None]).pred_masks[0]

    torch.testing.assert_close(our_masks(), their_masks(), rtol=1e-3, atol=1e-4)
    taken = [(seconds(our_masks), seconds(their_masks)) for _ in range(3)]
    return {name: median(each) for name, each in zip(("ours", "transformers"), zip(*taken, strict=True), strict=True)}


@torch.inference_mode()
def main() -> dict[str, float]:
    """How many times more transformers needs.

    Raises:
        AssertionError: masks that are not theirs.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    begin = sides(256, 100, OBJECTS)
    first = begin()
    masks, expected = (torch.stack([side.frame(at) for at in range(3)]) for side in first.values())
    torch.testing.assert_close(masks, expected, rtol=0, atol=2e-2 * float(expected.std()))  # kept in bfloat16
    found = {
        FLOAT: shown(FLOAT, in_turns(begin(), 30, 16)),
    }
    with torch.autocast("cpu", torch.bfloat16):
        found[LOW] = shown(LOW, in_turns(begin(), 30, 16))
    held = {name: float(peak_bytes(all_frames(side, 100))) for name, side in begin().items()}
    found[MEMORY] = shown(MEMORY, held, 1e-6, "MB")
    found[LARGE] = shown(LARGE, in_turns(sides(1024, 3, 1)(), 3, 0))
    found[IMAGE] = shown(IMAGE, of_images(1024))
    found[GROWTH] = growth(networks(256)[0], 256)
    return found


if __name__ == "__main__":
    main()
