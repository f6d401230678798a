"""Everything mode of SAM, ours against transformers' mask-generation pipeline, after the image has been embedded.

    python -m benchmarks.everything

32 x 32 points on an image of 1024 x 1024, decoders of full size with the same random weights, one CPU thread; processor
time, of which a busy machine takes no more. What random weights draw is noise, so it is made smooth: the embedding is,
the enlarging convolutions are the same for all cells of a block, and logits are as far from 0 as SAM's; masks are then
of any size, where SAM's are mostly small. One in four is above the threshold of predicted IoU, and half of these are
stable. The pipeline is told the embedding; ours decides as it does (`like: transformers`), and the masks are the same,
in the same order, but for a few pixels of which one sum is above 0 and another, in another order, is not.

`logits to run lengths` begins with the logits of all three masks of 64 points, and ends with run lengths and boxes of
those that stay; `all worth it` is the same where every mask is above the threshold of predicted IoU, so that ours saves
nothing by it. Memory is the most that is held at one time beside weights and embedding while 64 points are asked.
"""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import SamImageProcessor, pipeline

from benchmarks.paste_masks import held
from benchmarks.prompt_decoder import networks
from segfolio.data.formats import rle
from segfolio.data.prompts import Prompts
from segfolio.inference.everything import Everything, Found
from segfolio.inference.mask_runs import MaskRuns
from segfolio.inference.prompting import EmbeddedImages
from segfolio.layers.prompting import PromptedMasks
from segfolio.weights.sam import from_transformers

WHOLE, RUNS, WORTH, MEMORY = "whole, after the embedding", "logits to run lengths", "all worth it", "memory"
AIMS = {WHOLE: ">= 2", RUNS: ">= 5", WORTH: ">= 5", MEMORY: ">= 4"}
SIZE, BATCH, GRID, ROUNDS = (1024, 1024), 64, 32, 3


class Case(NamedTuple):
    """The image in both networks, and how they are asked for everything."""

    ours: EmbeddedImages
    theirs: Any
    everything: Everything

    def pipeline(self, points_per_side: int) -> dict[str, Any]:
        """All of transformers' but for the image encoder, whose place the embedding takes."""
        everything = self.everything
        return self.theirs(
            Image.new("RGB", SIZE),
            points_per_batch=BATCH,
            points_per_crop=points_per_side,
            pred_iou_thresh=everything.iou_threshold,
            stability_score_thresh=everything.stability_threshold,
            stability_score_offset=everything.stability_offset,
            crops_nms_thresh=everything.crop_nms_threshold,
            output_rle_mask=True,
        )

    def find(self, points_per_side: int) -> Found:
        settings = {**vars(self.everything), "points_per_side": points_per_side}
        return Everything(**settings).find(self.ours)


def case() -> Case:
    """Thresholds are those of which a quarter of the masks of 8 x 8 points is worth it, and half of these stable."""
    ours, theirs = networks()
    decoder: Any = theirs.mask_decoder
    for convolution in (decoder.upscale_conv1, decoder.upscale_conv2):
        convolution.weight.data[:] = 2 * convolution.weight.data.mean((2, 3), keepdim=True)
    for head in decoder.output_hypernetworks_mlps:
        head.proj_out.weight.data *= 40
    ours.load_state_dict(from_transformers(theirs.state_dict()))
    embedding = interpolate(torch.randn(1, 256, 7, 7), (64, 64), mode="bicubic")
    theirs.get_image_embeddings = lambda *_, **__: embedding
    image = EmbeddedImages(ours, (embedding,), [SIZE])
    found = Everything(8, iou_threshold=0, stability_threshold=0, nms_threshold=1).find(image)
    worth = float(found.iou.quantile(0.75))
    stable = float(found.stability[found.iou > worth].nan_to_num(0).median())
    areas = np.quantile(rle.areas(found.rles), (0.25, 0.5, 0.75)) / SIZE[0] / SIZE[1]
    print(f"quartiles of the masks' areas, in parts of the image: {', '.join(f'{x:.3f}' for x in areas)}")
    print(f"thresholds: predicted IoU {worth:.3f}, stability {stable:.3f}")
    everything = Everything(GRID, iou_threshold=worth, stability_threshold=stable, like="transformers")
    generator = pipeline("mask-generation", model=theirs, image_processor=SamImageProcessor())
    return Case(image, generator, everything)


def processor_seconds(update: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    found = update()
    return time.process_time() - start, found


def answers(given: Case) -> PromptedMasks:
    """Of points all over the image."""
    grid = given.everything.grid(0)[:: GRID**2 // BATCH].float() * SIZE[0] + 0.5
    of = torch.zeros(len(grid), dtype=torch.int64)
    return given.ours.ask(Prompts(of, grid[:, None], torch.ones_like(of)[:, None]), of)


def our_runs(given: Case, asked: PromptedMasks, worth: float) -> tuple[list[rle.RLE], Tensor]:
    """Run lengths and boxes."""
    everything, reader = given.everything, MaskRuns.of(given.ours, 0)
    logits = asked.masks[asked.iou > worth].numpy()
    stable = [reader.stable(x, everything.stability_offset, everything.stability_threshold, True) for x in logits]
    masks = [mask for _, mask in filter(None, stable)]
    return masks, torch.from_numpy(rle.boxes(masks))


def their_runs(given: Case, asked: PromptedMasks, worth: float) -> tuple[list[dict[str, Any]], Tensor]:
    processor, everything, box = given.theirs.image_processor, given.everything, [0, 0, *SIZE]
    (masks,) = processor.post_process_masks(asked.masks[None], [SIZE], [SIZE], binarize=False)
    limits = worth, everything.stability_threshold, 0, everything.stability_offset
    masks, _, boxes = processor.filter_masks(masks, asked.iou, SIZE, torch.tensor(box).float(), *limits)
    return masks, boxes


@torch.inference_mode()
def main() -> dict[str, float]:
    """How many times longer and larger transformers' is.

    Raises:
        AssertionError: the masks differ.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given = case()
    asked = answers(given)
    ratios = {
        RUNS: to_runs(given, asked, given.everything.iou_threshold),
        WORTH: to_runs(given, asked._replace(iou=asked.iou.abs() + 1), worth=1),
        MEMORY: memory(given),
    }
    theirs, expected = processor_seconds(partial(given.pipeline, GRID))
    ours, found = processor_seconds(partial(given.find, GRID))
    apart = most_apart(found.rles, [x["counts"] for x in expected["rle_mask"]])
    print(
        f"whole: {len(found.rles)} masks (at most {apart} pixels apart), transformers {theirs:.1f} s, ours {ours:.1f} s"
    )
    return {WHOLE: theirs / ours, **ratios}


def to_runs(given: Case, asked: PromptedMasks, worth: float) -> float:
    """How many times longer transformers takes from logits to run lengths, the median of rounds in turns."""
    rounds = []
    for _ in range(ROUNDS):
        theirs, (expected, _) = processor_seconds(partial(their_runs, given, asked, worth))
        ours, (masks, _) = processor_seconds(partial(our_runs, given, asked, worth))
        rounds.append((theirs, ours))
    apart = most_apart(masks, [x["counts"] for x in expected])
    assert apart <= 4  # of the same logits
    theirs, ours = (median(seconds) for seconds in zip(*rounds, strict=True))
    print(
        f"to run lengths: {(asked.iou > worth).sum()} of {asked.iou.numel()} masks are worth it, {len(masks)} stable "
        f"(at most {apart} pixels apart), transformers {theirs:.2f} s, ours {ours:.3f} s"
    )
    return theirs / ours


def memory(given: Case) -> float:
    side = int(BATCH**0.5)
    theirs, ours = held(partial(given.pipeline, side)), held(partial(given.find, side))
    print(f"memory: transformers {theirs:.2f} GiB, ours {ours:.3f} GiB")
    return theirs / ours


def most_apart(masks: list[rle.RLE], counts: list[list[int]]) -> int:
    """The most pixels in which a mask differs.

    Raises:
        AssertionError: another number of masks, or one that differs in more than a pixel of 10,000.
    """
    assert len(masks) == len(counts)
    pairs = zip(masks, (rle.from_counts(each, SIZE) for each in counts), strict=True)
    apart = max(int((rle.decode([one], SIZE) != rle.decode([other], SIZE)).sum()) for one, other in pairs)
    assert apart <= 1e-4 * SIZE[0] * SIZE[1]
    return apart


if __name__ == "__main__":
    main()
