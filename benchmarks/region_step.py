"""A training step and inference of Mask R-CNN, ours against torchvision's own model: same weights, batch and sampling.

    python -m benchmarks.region_step

ResNet-50-FPN, one image of 256 x 320 with its shapes, 64 regions in the losses, 100 detections. A step is the truth of
the batch to losses, backward and SGD; inference ends with masks at the original size, ours as run lengths.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from benchmarks.confusion_matrix import median_times
from segfolio.architectures.region_based.mask_rcnn import MaskRCNN
from segfolio.data.datasets import Shapes
from segfolio.data.module import collate
from segfolio.data.sample import Batch
from segfolio.families.detection import Detection, detection_target
from segfolio.layers.regions import RegionRecipe

AIMS = {"training / torchvision": "<= 1.03", "inference / torchvision": "<= 1.03"}
SIZE, REGIONS = (256, 320), 64


def models() -> tuple[Detection, nn.Module]:
    """Both with the weights of the latter."""
    torch.manual_seed(0)
    labels = Shapes.labels
    peer = TorchvisionMaskRCNN(
        resnet_fpn_backbone(backbone_name="resnet50", weights=None),
        num_classes=1 + len(labels.things),
        min_size=SIZE[0],
        max_size=SIZE[1],
        box_batch_size_per_image=REGIONS,
        box_score_thresh=0.0,
    )
    recipe = RegionRecipe(samples=REGIONS, score_threshold=0.0)
    sgd = partial(torch.optim.SGD, lr=1e-4)
    ours = Detection(labels, partial(MaskRCNN, roi=recipe), optimizer=sgd)  # type: ignore[arg-type]
    ours.network.load_state_dict(peer.state_dict())
    return ours, peer


def for_torchvision(batch: Batch, places: Tensor) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images in 0 to 1 and targets, as torchvision's references make them."""
    truth = [detection_target(i, target, places) for i, target in zip(batch.image_ids, batch.targets, strict=True)]
    targets = [
        {"boxes": t.boxes, "labels": t.labels + 1, "masks": t.masks.byte()} for t in truth if t.masks is not None
    ]
    return list(batch.images / 255), targets


def main() -> dict[str, float]:
    """How many times as long ours takes.

    Raises:
        AssertionError: the losses of both differ.
    """
    torch.set_num_threads(1)
    ours, peer = models()
    batch = collate([next(s for s in map(Shapes(size=SIZE).read, range(9)) if len(s.target.segments) > 4)])
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-4) for model in (ours, peer)]

    def our_losses() -> dict[str, Tensor]:
        return ours.compute_losses(batch)

    def their_losses() -> dict[str, Tensor]:
        return peer(*for_torchvision(batch, ours.places))

    def step(losses: object, optimizer: torch.optim.Optimizer) -> None:
        torch.manual_seed(0)  # of the sampling
        optimizer.zero_grad()
        sum(losses().values()).backward()
        optimizer.step()

    totals = []
    for losses in (our_losses, their_losses):
        torch.manual_seed(0)
        totals.append(sum(losses().values()).detach())
    torch.testing.assert_close(*totals, rtol=0.02, atol=0)  # rounding of the input decides between untrained proposals
    sides = zip(("ours", "torchvision"), (our_losses, their_losses), optimizers, strict=True)
    training = median_times({name: partial(step, losses, optimizer) for name, losses, optimizer in sides}, rounds=7)
    ours.eval()
    peer.eval()
    with torch.inference_mode():
        inference = median_times(
            {
                "ours": lambda: ours.predict(batch) and None,
                "torchvision": lambda: peer(list(batch.images / 255)) and None,
            },
            rounds=7,
        )
    for name, seconds in {"training": training, "inference": inference}.items():
        print(f"{name}: " + ", ".join(f"{side} {1e3 * s:.0f} ms" for side, s in seconds.items()))
    ratios = {"training": training, "inference": inference}
    return {f"{name} / torchvision": s["ours"] / s["torchvision"] for name, s in ratios.items()}


if __name__ == "__main__":
    main()
