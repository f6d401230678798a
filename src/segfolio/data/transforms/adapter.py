"""Any transform of torchvision on our samples."""

from dataclasses import replace

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.tv_tensors import Mask

from segfolio.data.sample import Sample, Target
from segfolio.data.transforms.geometry import expect_no_prompts, present
from segfolio.errors import SegfolioError


class TorchvisionV2:
    """A `torchvision.transforms.v2` transform, applied to image, semantic map, segments and weight together.

    Its randomness is drawn from `rng`, and torch's own generator is left as it was. torchvision chooses the
    fill value by the type of a tensor; so that its default 0 pads the semantic map with `ignore_index` and
    the masks with nothing, class indices travel relative to `ignore_index`. Leave `fill` of masks at 0.

    Args:
        transform: one that keeps the type of images, such as `v2.RandomPerspective`.

    Raises:
        SegfolioError: an image that it does not take, or makes of another type, a semantic map that was padded with
            another value, a sample with prompts.
    """

    def __init__(self, transform: v2.Transform) -> None:
        self.transform = transform

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        expect_no_prompts(sample)
        target = sample.target or Target()
        name, planes = type(self.transform).__name__, {"weight": target.weight}
        if target.semantic is not None:
            planes["semantic"] = Mask(target.semantic.int() - target.ignore_index)
        if target.segments is not None:
            planes["masks"] = target.segments.masks
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng.integers(2**63)))
            try:
                image, planes = self.transform(sample.image, planes)
            except (TypeError, ValueError, RuntimeError) as error:
                found = f"{list(sample.image.shape)} of {sample.image.dtype}"
                raise SegfolioError(
                    f"TorchvisionV2: {name} does not take {sample.image_id}, {found}: {' '.join(str(error).split())}"
                ) from error
        if image.dtype != sample.image.dtype:
            raise SegfolioError(
                f"TorchvisionV2: {name} made {image.dtype} of {sample.image_id}; images stay {sample.image.dtype}, the "
                "model normalises them"
            )
        moved = replace(target, weight=planes["weight"])
        if target.semantic is not None:
            if planes["semantic"].max() > 0:
                raise SegfolioError(
                    f"TorchvisionV2: {name} pads masks with a value of its own; leave `fill` of masks at 0, "
                    "which becomes ignore_index"
                )
            moved.semantic = Mask((planes["semantic"] + target.ignore_index).to(target.semantic.dtype))
        if target.segments is not None:
            moved.segments = present(target.segments.with_masks(planes["masks"]))
        return replace(sample, image=image, target=sample.target and moved)
