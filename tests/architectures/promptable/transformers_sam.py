"""transformers' SAM of the size of `SAM.tiny`, with random weights throughout, and what it answers to our prompts."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import SamConfig, SamModel

from segfolio.layers.prompting import PromptInput


def transformers_sam(image_size: int = 128, epsilon: float = 1e-5) -> SamModel:
    """Its decoder's norms have the release's epsilon unless told otherwise."""
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": image_size}
    config = SamConfig(
        vision_config={**vision, "window_size": 3, "global_attn_indexes": [1]},  # type: ignore[call-arg]
        prompt_encoder_config={"image_size": image_size},  # type: ignore[call-arg]
        mask_decoder_config={"layer_norm_eps": epsilon},  # type: ignore[call-arg]
    )
    return randomised(SamModel(config).eval())


def randomised(model: Any) -> Any:
    """With weights of no value that they begin with, by which activations keep their scale."""
    for name, p in model.named_parameters():
        if p.ndim > 1 and "positional" not in name:
            nn.init.normal_(p, std=0.8 * p[0].numel() ** -0.5)
        else:
            nn.init.normal_(p, mean=float("norm" in name and name.endswith("weight")), std=0.2)
    return model


def padded(images: Tensor, side: int) -> Tensor:
    return pad(images, (0, side - images.shape[-1], 0, side - images.shape[-2]))


def asked(prompts: PromptInput, count: int) -> dict[str, Tensor]:
    """Prompts of so many images as arguments of transformers, whose points are indices of pixels. Every image has as
    many prompts, one after the other."""
    given = dict[str, Tensor]()

    def by_image(x: Tensor) -> Tensor:
        return x.unflatten(0, (count, -1))

    if prompts.kinds.shape[1]:
        given |= {"input_points": by_image(prompts.points) - 0.5, "input_labels": by_image(prompts.kinds)}
    if prompts.boxes is not None:
        given["input_boxes"] = by_image(prompts.boxes)
    if prompts.masks is not None:  # one an image
        given["input_masks"] = prompts.masks[:, None]
    return given


def answers(
    model: SamModel, images: Tensor, prompts: PromptInput, multimask: bool = True, **given: Any
) -> tuple[Tensor, Tensor]:
    """Masks `[P, M, h, w]` and scores `[P, M]` of transformers, see `asked`."""
    given |= asked(prompts, len(images))
    side = model.config.vision_config.image_size
    found = model(pixel_values=padded(images, side), multimask_output=multimask, **given)
    return found.pred_masks.flatten(0, 1), found.iou_scores.flatten(0, 1)
