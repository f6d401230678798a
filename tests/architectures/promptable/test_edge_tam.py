"""EdgeTAM equals transformers' of images and of videos under the same weights; those of the release load."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import EdgeTamConfig, EdgeTamModel, EdgeTamVideoConfig, EdgeTamVideoModel

from segfolio.architectures.promptable.edge_tam import EdgeTAM
from segfolio.architectures.promptable.sam2 import SAM2
from segfolio.data.prompts import NOT_OBJECT, OBJECT, PADDING, Prompts
from segfolio.errors import SegfolioError
from segfolio.inference.prompting import EmbeddedImages
from segfolio.inference.track import Tracker
from segfolio.layers.hollow import hollow
from segfolio.layers.tracking import ABSENT, Recalled
from tests.architectures.promptable.prompts import of_kind
from tests.architectures.promptable.transformers_sam import randomised
from tests.architectures.promptable.transformers_sam2 import answers, no_point
from tests.inference.transformers_tracker import TransformersTracker

SIZE = (128, 128)
NONE = (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
IMAGES_ALONE = "ignore:.*weights for images alone:UserWarning"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def vision() -> dict[str, Any]:
    widths, depths = EdgeTAM.tiny["widths"], EdgeTAM.tiny["depths"]
    form = {"in_chans": 3, "features_only": True, "out_indices": (0, 1, 2, 3), "embed_dim": widths, "depth": depths}
    return {
        "model_type": "edgetam_vision_model",
        "backbone_config": {
            "model_type": "timm_wrapper",
            **{"architecture": "repvit_m1", "num_classes": 1, "model_args": form},
        },
        "backbone_channel_list": list(widths[::-1]),
        "backbone_feature_sizes": [[128 // stride] * 2 for stride in (4, 8, 16)],
    }


def transformers_edge_tam(video: bool) -> Any:
    """Of the size of `EdgeTAM.tiny`, with random weights and statistics throughout."""
    given: dict[str, Any] = {"vision_config": vision(), "prompt_encoder_config": {"image_size": 128}}
    if not video:
        model: Any = EdgeTamModel(EdgeTamConfig(**given))
    else:
        side = int(EdgeTAM.tiny["latents_2d"] ** 0.5)
        config = EdgeTamVideoConfig(
            **given,
            image_size=128,
            enable_temporal_pos_encoding_for_object_pointers=False,
            enable_occlusion_spatial_embedding=False,
            perceiver_resampler_num_latents=EdgeTAM.tiny["latents"],
            perceiver_resampler_num_latents_2d=EdgeTAM.tiny["latents_2d"],
            memory_attention_rope_feat_sizes=[8, 8],
            memory_attention_rope_k_sizes=[side, side],
        )
        model = EdgeTamVideoModel(config)
    model.prompt_encoder.shared_embedding.positional_embedding.copy_(model.shared_image_embedding.positional_embedding)
    randomised(model.eval())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def loaded(theirs: Any, folder: Path) -> EdgeTAM:
    torch.save(theirs.state_dict(), folder / "edgetam.pt")
    return EdgeTAM(1, **EdgeTAM.tiny, weights=str(folder / "edgetam.pt")).eval()


@pytest.mark.filterwarnings(IMAGES_ALONE)
@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", ["point", "box", "box + points", "mask", "mask + box"])
def test_answers_to_prompts_of_images_are_transformers(tmp_path: Path, kind: str, multimask: bool) -> None:
    theirs = transformers_edge_tam(video=False)
    ours, images = loaded(theirs, tmp_path), torch.randn(2, 3, *SIZE)
    prompts = of_kind(kind, SIZE, 32, images=2, each=1)
    masks, iou, score = answers(theirs, images, prompts, multimask)
    alone = prompts.masks is not None and prompts.boxes is None and not prompts.kinds.shape[1]
    found = ours(images, no_point(prompts) if alone else prompts, multimask)
    assert masks.std() > 0.1
    assert iou.std() > 3e-4
    assert found.object_score is not None
    torch.testing.assert_close(found.masks, masks, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.iou, iou, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.object_score, score, atol=1e-5, rtol=1e-5)


def test_two_objects_are_followed_as_transformers_follows_them(tmp_path: Path) -> None:
    """By points and by a box, with a third that comes later; the masks depend on what is remembered by far more than
    the tolerance."""
    theirs = transformers_edge_tam(video=True)
    theirs.memory_encoder.mask_downsampler.final_conv.weight *= 10
    for layer in theirs.memory_attention.layers:
        layer.cross_attn_image.q_proj.weight *= 4
        layer.cross_attn_image.o_proj.weight *= 3
    theirs.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(9)  # every object is there
    ours, theirs = loaded(theirs, tmp_path).double(), theirs.double()
    video = torch.randn(6, 3, *SIZE, dtype=torch.float64)
    points, kinds = torch.tensor([[40.5, 50.5], [90.0, 30.0]]), torch.tensor([OBJECT, NOT_OBJECT])
    box = torch.tensor([20.0, 30.0, 80.0, 90.0])
    tracker, other = Tracker(ours, 6, dtype=torch.float64, holes=0), TransformersTracker(theirs, video)
    padded = torch.stack([kinds, torch.full_like(kinds, PADDING)])
    boxes = torch.stack([torch.full_like(box, torch.nan), box])
    apart = []
    for number in range(6):
        image = EmbeddedImages(ours, ours.embed(video[number : number + 1]), [SIZE])
        if number == 0:
            tracker.prompt(0, image, Prompts(torch.tensor([7, 3]), points.expand(2, -1, -1), padded, boxes))
            other.points(0, 7, points, kinds)
            other.points(0, 3, *NONE, box=box)
        if number == 3:
            tracker.prompt(3, image, Prompts(torch.tensor([5]), boxes=box[None] + 10))
            other.points(3, 5, *NONE, box=box + 10)
        found, (masks, score) = tracker.follow(number, image), other.follow(number)
        torch.testing.assert_close(found.masks, masks, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.object_score, score, atol=1e-5, rtol=1e-5)
        apart.append(float((masks[0] - masks[1]).abs().max()))
    assert min(apart[1:]) > 1e-3  # each has its own memory
    assert tracker._frames._held[0].shape[1:] == (64, 24, 1)  # 16 of windows and 8 of the whole


def test_what_is_absent_is_as_if_it_were_not_there() -> None:
    """An object with fewer frames and pointers than another of the batch."""
    network = EdgeTAM(1, **EdgeTAM.tiny).eval()
    features, pointers = torch.randn(2, 3, 64, 24, 1), torch.randn(2, 2, 256)
    ages, distances = torch.tensor([[0, 1, 2], [0, 4, ABSENT]]), torch.tensor([[1.0, 2.0], [3.0, torch.nan]])
    embedding = network.embed(torch.randn(1, 3, *SIZE))
    both = network.attend(embedding, Recalled(features, ages, pointers, distances, 15))[0]
    alone = network.attend(
        embedding, Recalled(features[1:, :2], ages[1:, :2], pointers[1:, :1], distances[1:, :1], 15)
    )[0]
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-5)


def released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the names of the release, by what distinguishes them from ours."""
    renamed = {}
    for key, value in state.items():
        key = key.replace("image_encoder.conv_s", "sam_mask_decoder.conv_s")
        key = f"sam_{key}" if key.startswith(("prompt_encoder.", "mask_decoder.")) else key
        for number in (1, 2):
            if "transformer" in key:
                key = key.replace(f"mlp.lin{number}", f"mlp.layers.{number - 1}")
        renamed[key] = value
    return {**renamed, "no_mem_pos_enc": torch.zeros(1, 1, 256)}


def test_a_checkpoint_of_the_release_loads(tmp_path: Path) -> None:
    network = EdgeTAM(1, **EdgeTAM.tiny)
    torch.save({"model": released(network.state_dict())}, tmp_path / "edgetam.pt")
    other = EdgeTAM(1, **EdgeTAM.tiny, weights=str(tmp_path / "edgetam.pt"))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in network.state_dict().items())


@pytest.mark.filterwarnings(IMAGES_ALONE)
@pytest.mark.parametrize("video", [True, False], ids=["video", "image"])
def test_a_released_model_is_read_from_its_folder(tmp_path: Path, video: bool) -> None:
    theirs = transformers_edge_tam(video)
    theirs.save_pretrained(tmp_path)
    ours, expected = EdgeTAM(1, **EdgeTAM.tiny, weights=str(tmp_path)).eval(), loaded(theirs, tmp_path)
    images, prompts = torch.randn(1, 3, *SIZE), of_kind("point", SIZE, 32, images=1, each=1)
    assert torch.equal(ours(images, prompts).masks, expected(images, prompts).masks)


def test_weights_of_images_alone_are_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="weights for images alone: the memory begins with random weights"):
        loaded(transformers_edge_tam(video=False), tmp_path)


def test_parameters_are_those_of_transformers() -> None:
    """Which keeps the frequencies of positions twice."""
    with hollow():
        ours = EdgeTAM(1)
    assert sum(p.numel() for p in ours.parameters()) == 13_895_538
    tiny = EdgeTAM(1, **EdgeTAM.tiny)
    counts = [sum(p.numel() for p in each.parameters()) for each in (transformers_edge_tam(video=True), tiny)]
    assert counts[0] - counts[1] == 256


def test_mistakes_are_named(tmp_path: Path) -> None:
    torch.save(SAM2(1, **SAM2.tiny).state_dict(), tmp_path / "sam2.pt")
    with pytest.raises(SegfolioError, match=r"sam2\.pt holds no RepViT as image encoder; expected weights of EdgeTAM"):
        EdgeTAM(1, **EdgeTAM.tiny, weights=str(tmp_path / "sam2.pt"))
    with pytest.raises(SegfolioError, match="latents_2d of EdgeTAM is 9, expected the square of a number that divides"):
        EdgeTAM(1, **{**EdgeTAM.tiny, "latents_2d": 9})
    with pytest.raises(SegfolioError, match=r"sam3 is neither a file nor a repository .* expected e.g. edgetam.pt or"):
        EdgeTAM(1, **EdgeTAM.tiny, weights="sam3")
