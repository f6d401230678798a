"""What each family is measured beside: a model of torchvision or transformers in a loop without anything around it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from segfolio.data.datasets import Shapes
from segfolio.data.image_space import IMAGENET_MEAN, IMAGENET_STD
from segfolio.data.sample import Batch
from segfolio.families.detection import detection_target
from segfolio.families.mask_classification import mask_target

CLASSES = Shapes.labels.num_classes


class Peer(NamedTuple):
    """A model, what it answers to a batch, and the loss that it is trained by; None where it has none of its own."""

    network: nn.Module
    answer: Callable[[Batch], object]
    loss: Callable[[Batch], Tensor] | None


def normalised(batch: Batch) -> Tensor:
    mean, std = (255 * batch.images.new_tensor(x, dtype=torch.float32) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (batch.images - mean[:, None, None]) / std[:, None, None]


def deeplab(tiny: bool) -> Peer:
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large, deeplabv3_resnet50

    make: Any = deeplabv3_mobilenet_v3_large if tiny else deeplabv3_resnet50
    network = make(weights=None, weights_backbone=None, num_classes=CLASSES)

    def answer(batch: Batch) -> Tensor:
        return network(normalised(batch))["out"]

    return Peer(network, answer, lambda batch: cross_entropy(answer(batch), batch.semantic(), ignore_index=255))


def segformer(tiny: bool) -> Peer:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    small: dict[str, Any] = {"depths": [1] * 4, "hidden_sizes": [16] * 4, "num_attention_heads": [1] * 4}
    network = SegformerForSemanticSegmentation(
        SegformerConfig(num_labels=CLASSES, attn_implementation="sdpa", **(small if tiny else {}))
    )

    def answer(batch: Batch) -> Tensor:
        return network(normalised(batch)).logits

    def loss(batch: Batch) -> Tensor:
        logits = interpolate(answer(batch), batch.images.shape[-2:], mode="bilinear", align_corners=False)
        return cross_entropy(logits, batch.semantic(), ignore_index=255)

    return Peer(network, answer, loss)


def maskformer(tiny: bool) -> Peer:
    """With Swin-T."""
    from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation, SwinConfig

    small: dict[str, Any] = {"embed_dim": 16, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 4}
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = SwinConfig(image_size=512, out_features=stages, **(small if tiny else {}))
    config = MaskFormerConfig(backbone_config=backbone, num_labels=CLASSES, use_auxiliary_loss=True)
    network = MaskFormerForInstanceSegmentation(config)

    def loss(batch: Batch) -> Tensor:
        found = [mask_target(name, target) for name, target in zip(batch.image_ids, batch.targets, strict=True)]
        masks, labels = [each.masks.float() for each in found], [each.labels for each in found]
        truth = {"mask_labels": masks, "class_labels": labels}
        return network(normalised(batch), **truth, output_hidden_states=True).loss  # of which auxiliary losses are made

    return Peer(network, lambda batch: network(normalised(batch), output_hidden_states=True), loss)


def mask_rcnn(tiny: bool) -> Peer:
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(backbone_name="resnet18" if tiny else "resnet50", weights=None)
    labels = Shapes.labels
    few = {"box_batch_size_per_image": 16, "rpn_post_nms_top_n_train": 16, "rpn_post_nms_top_n_test": 16}
    network = MaskRCNN(backbone, 1 + len(labels.things), **(few if tiny else {}))
    places = torch.tensor(labels.is_thing)
    places = torch.where(places, places.cumsum(0) - 1, -1)

    def seen(batch: Batch) -> list[Tensor]:
        """At its own size, as ours sees it."""
        height, width = batch.images.shape[-2:]
        network.transform.min_size, network.transform.max_size = (min(height, width),), max(height, width)
        return list(batch.images / 255)

    def loss(batch: Batch) -> Tensor:
        here = places.to(batch.images.device)
        truth = [detection_target(i, t, here) for i, t in zip(batch.image_ids, batch.targets, strict=True)]
        targets = [{"boxes": t.boxes, "labels": t.labels + 1, "masks": t.masks.byte()} for t in truth]
        return torch.stack(list(network(seen(batch), targets).values())).sum()

    return Peer(network, lambda batch: network(seen(batch)), loss)


def sam(tiny: bool) -> Peer:
    """Without a loss: transformers has none of SAM's."""
    from transformers import SamConfig, SamModel

    small: dict[str, Any] = {"image_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**small, "window_size": 3, "global_attn_indexes": [1]} if tiny else {}
    prompts = {"image_size": 128, "image_embedding_size": 8} if tiny else {}
    network = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompts))  # type: ignore[call-arg]

    def answer(batch: Batch) -> object:
        images = normalised(batch)
        middle = images.new_tensor([images.shape[-1] / 2, images.shape[-2] / 2])
        return network(pixel_values=images, input_points=middle.expand(len(images), 1, 1, 2))

    return Peer(network, answer, None)
