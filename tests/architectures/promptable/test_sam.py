"""SAM equals transformers' under the same weights, in answers and gradients; its weights and the release's load."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import SamConfig, SamModel

from segfolio.architectures.promptable.sam import SAM
from segfolio.errors import SegfolioError
from segfolio.layers.hollow import hollow
from segfolio.layers.prompting import PromptInput
from segfolio.weights.sam import from_transformers
from tests.architectures.promptable.prompts import of_kind, of_prompts, points
from tests.architectures.promptable.transformers_sam import answers, padded, randomised, transformers_sam

KINDS = ("point", "points", "box", "box + point", "box + points", "mask", "mask + point", "mask + box")
PADDING = -10


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def loaded(theirs: SamModel, folder: Path, **arguments: Any) -> SAM:
    torch.save(theirs.state_dict(), folder / "sam.pth")
    return SAM(1, **{**SAM.tiny, **arguments}, weights=str(folder / "sam.pth")).eval()


@torch.no_grad()
def assert_equal(ours: SAM, theirs: SamModel, images: Tensor, prompts: PromptInput, multimask: bool = True) -> None:
    found = ours(images, prompts, multimask)
    masks, iou = answers(theirs, images, prompts, multimask)
    assert masks.std() > 0.1  # not equal because there is nothing
    assert iou.std() > 1e-3
    torch.testing.assert_close(found.masks, masks, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.iou, iou, atol=1e-5, rtol=1e-5)
    assert found.object_score is None


@pytest.mark.parametrize("size", [(128, 128), (128, 83), (61, 127)], ids=str)
def test_embeddings_are_transformers(tmp_path: Path, size: tuple[int, int]) -> None:
    theirs = transformers_sam()
    ours, images = loaded(theirs, tmp_path), torch.randn(2, 3, *size)
    with torch.no_grad():
        (embedding,) = ours.embed(images)
        torch.testing.assert_close(embedding, theirs.get_image_embeddings(padded(images, 128)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("multimask", [True, False], ids=["three masks", "one"])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_transformers(tmp_path: Path, kind: str, multimask: bool) -> None:
    theirs = transformers_sam()
    size = (128, 97)
    assert_equal(loaded(theirs, tmp_path), theirs, torch.randn(2, 3, *size), of_kind(kind, size, 32), multimask)


@pytest.mark.parametrize("kind", ["points", "box", "box + point"])
def test_answers_to_several_prompts_of_several_images_are_transformers(tmp_path: Path, kind: str) -> None:
    theirs, size = transformers_sam(), (90, 128)
    assert_equal(loaded(theirs, tmp_path), theirs, torch.randn(3, 3, *size), of_kind(kind, size, 32, images=3, each=4))


@pytest.mark.parametrize("image_size", [96, 160])
def test_answers_at_another_image_size_are_transformers(tmp_path: Path, image_size: int) -> None:
    theirs, size = transformers_sam(image_size), (image_size - 5, image_size)
    ours = loaded(theirs, tmp_path, image_size=image_size)
    assert (ours.image_size, ours.mask_size) == (image_size, image_size // 4)
    assert_equal(ours, theirs, torch.randn(2, 3, *size), of_kind("points", size, image_size // 4))


def test_answers_are_transformers_with_its_own_epsilon_too(tmp_path: Path) -> None:
    """Of its decoder's norms, a tenth of the release's; in random weights it is not to be seen."""
    theirs = transformers_sam(epsilon=1e-6)
    images, prompts = torch.randn(2, 3, 128, 128), of_kind("box + point", (128, 128), 32)
    with torch.no_grad():
        found, (masks, iou) = loaded(theirs, tmp_path)(images, prompts), answers(theirs, images, prompts)
    torch.testing.assert_close(found.masks, masks, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.iou, iou, atol=1e-4, rtol=1e-4)


def ragged() -> PromptInput:
    """Two images, three prompts each, of one to four points."""
    prompts = points(torch.arange(2).repeat_interleave(3), 4, (128, 128))
    beyond = torch.arange(4) >= torch.tensor([1, 4, 2, 3, 1, 4])[:, None]
    return prompts._replace(kinds=prompts.kinds.masked_fill(beyond, PADDING))


def test_padding_with_zeros_is_transformers(tmp_path: Path) -> None:
    theirs, images, prompts = transformers_sam(), torch.randn(2, 3, 128, 128), ragged()
    assert_equal(loaded(theirs, tmp_path, padding="zero"), theirs, images, prompts)
    with torch.no_grad():
        apart = (
            (loaded(theirs, tmp_path)(images, prompts).masks - answers(theirs, images, prompts)[0])
            .abs()
            .amax((1, 2, 3))
        )
    assert (apart[[1, 5]] < 1e-4).all()  # nothing is padded
    assert (apart[[0, 2, 3, 4]] > 1e-2).all()


def test_a_box_and_points_padded_with_zeros_are_transformers(tmp_path: Path) -> None:
    theirs, images = transformers_sam(), torch.randn(2, 3, 128, 128)
    prompts = ragged()._replace(boxes=of_kind("box", (128, 128), 32, each=3).boxes)
    assert_equal(loaded(theirs, tmp_path, padding="zero"), theirs, images, prompts)


def test_a_point_that_is_none_is_transformers(tmp_path: Path) -> None:
    """One that a caller adds, beside the one that is added to points without a box."""
    theirs, prompts = transformers_sam(), of_kind("points", (128, 128), 32)
    prompts.kinds[:, 1] = -1
    assert_equal(loaded(theirs, tmp_path), theirs, torch.randn(2, 3, 128, 128), prompts)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_transformers(tmp_path: Path, kind: str) -> None:
    """Which projects every cell for every prompt."""
    theirs = transformers_sam()
    ours, images, prompts = loaded(theirs, tmp_path), torch.randn(2, 3, 128, 128), of_kind(kind, (128, 128), 32)
    found, (masks, iou) = ours(images, prompts), answers(theirs, images, prompts)
    (found.masks.sigmoid().mean((2, 3)) + found.iou).square().sum().backward()
    (masks.sigmoid().mean((2, 3)) + iou).square().sum().backward()
    theirs_by_name = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in theirs.named_parameters()}
    expected = from_transformers(theirs_by_name)
    for name, p in ours.named_parameters():
        given = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(given, expected[name], atol=1e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    theirs, images, found = transformers_sam(), torch.randn(1, 3, 128, 128), []
    for checkpointing in (False, True):
        network = loaded(theirs, tmp_path, checkpointing=checkpointing).train()
        network.embed(images)[0].square().mean().backward()
        found.append([p.grad for p in network.image_encoder.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_stochastic_depth_grows_from_the_first_block_to_the_last() -> None:
    network = SAM(1, **{**SAM.tiny, "depth": 5}, drop_path=0.4)
    rates = [block.drop_path.drop_prob for block in network.image_encoder.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_the_first_pixels_centre_is_at_a_half() -> None:
    """A point in the centre of a cell of the embedding has that cell's position."""
    encoder = SAM(1, **SAM.tiny).prompt_encoder
    centre = torch.tensor([[(3 + 0.5) * 16, (5 + 0.5) * 16]]) / 128
    torch.testing.assert_close(encoder.pe_layer(centre)[0], encoder.positions()[5 * 8 + 3], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "count"),
    [("points", 4), ("box", 2), ("box + point", 3), ("box + points", 5), ("mask", 0), ("mask + box", 2)],
)
def test_a_prompt_has_as_many_tokens_as_in_the_release(kind: str, count: int) -> None:
    """ "Not a point" is added to points without a box."""
    tokens = SAM(1, **SAM.tiny).prompt_encoder(of_kind(kind, (128, 128), 32))
    assert tokens.attended.sum(1).tolist() == [count] * 2


def test_a_box_of_nan_is_none() -> None:
    network, images = SAM(1, **SAM.tiny).eval(), torch.randn(2, 3, 128, 128)
    prompts = of_kind("box + points", (128, 128), 32)
    prompts.boxes[1] = torch.nan
    with torch.no_grad():
        both, alone = network(images, prompts), network(images, of_prompts(prompts._replace(boxes=None), slice(1, 2)))
    torch.testing.assert_close(both.masks[1:], alone.masks, atol=1e-5, rtol=1e-5)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(SegfolioError, match="prompts have masks of 16x16 cells, expected 32x32"):
        SAM(1, **SAM.tiny)(torch.randn(2, 3, 128, 128), of_kind("mask", (128, 128), 16))


def test_an_image_size_that_is_no_multiple_of_16_is_refused() -> None:
    with pytest.raises(SegfolioError, match="image_size of SAM is 1000, expected a multiple of 16"):
        SAM(1, image_size=1000)


RELEASED = """
image_encoder.pos_embed image_encoder.patch_embed.proj.weight image_encoder.blocks.11.norm1.weight
image_encoder.blocks.0.attn.qkv.weight image_encoder.blocks.0.attn.rel_pos_h image_encoder.blocks.0.attn.proj.bias
image_encoder.blocks.0.mlp.lin1.weight image_encoder.neck.0.weight image_encoder.neck.3.bias
prompt_encoder.pe_layer.positional_encoding_gaussian_matrix prompt_encoder.point_embeddings.3.weight
prompt_encoder.not_a_point_embed.weight prompt_encoder.mask_downscaling.0.weight prompt_encoder.mask_downscaling.6.bias
prompt_encoder.no_mask_embed.weight mask_decoder.transformer.layers.1.self_attn.q_proj.weight
mask_decoder.transformer.layers.0.cross_attn_token_to_image.k_proj.weight mask_decoder.transformer.layers.1.norm4.bias
mask_decoder.transformer.layers.0.cross_attn_image_to_token.out_proj.weight
mask_decoder.transformer.layers.0.mlp.lin2.weight mask_decoder.transformer.final_attn_token_to_image.v_proj.bias
mask_decoder.transformer.norm_final_attn.weight mask_decoder.iou_token.weight mask_decoder.mask_tokens.weight
mask_decoder.output_upscaling.0.weight mask_decoder.output_upscaling.1.bias mask_decoder.output_upscaling.3.weight
mask_decoder.output_hypernetworks_mlps.3.layers.2.weight mask_decoder.iou_prediction_head.layers.0.bias
"""  # some of the names in sam_vit_b_01ec64.pth


def variant(name: str, **arguments: Any) -> SAM:
    with hollow():
        return SAM(1, **SAM.variants[name], **arguments)


def test_weights_have_the_names_of_the_release() -> None:
    names = variant("SAM, ViT-B").state_dict().keys()
    assert len(names) == 314
    assert set(RELEASED.split()) <= names


def millions(*parameters: Tensor) -> float:
    return round(sum(p.numel() for p in parameters) / 1e6, 2)


@pytest.mark.parametrize(
    ("name", "whole", "plain", "published"),
    [("SAM, ViT-B", 89.67, 85.65, 86), ("SAM, ViT-L", 308.28, 303.10, 307), ("SAM, ViT-H", 637.03, 630.66, 632)],
)
def test_parameters(name: str, whole: float, plain: float, published: float) -> None:
    """Of the image encoder as released; of its blocks and patches alone, about what is published, that of a plain ViT.

    The published 0.006 M of the prompt encoder count its 256 random frequencies, which are no parameters.
    """
    network = variant(name)
    encoder = dict(network.image_encoder.named_parameters())
    assert millions(*encoder.values()) == whole
    assert millions(*(p for n, p in encoder.items() if "pos" not in n and "neck" not in n)) == plain
    assert plain == pytest.approx(published, rel=0.015)
    assert sum(p.numel() for p in network.prompt_encoder.state_dict().values()) == 6_476
    assert sum(p.numel() for p in network.prompt_encoder.parameters()) == 6_220
    assert millions(*network.mask_decoder.parameters()) == 4.06


def test_a_released_model_is_read_from_its_folder(tmp_path: Path) -> None:
    theirs = transformers_sam()
    theirs.save_pretrained(tmp_path)
    ours = SAM(1, **SAM.tiny, weights=str(tmp_path)).eval()
    assert_equal(ours, theirs, torch.randn(2, 3, 128, 128), of_kind("box + point", (128, 128), 32))


def test_a_networks_own_weights_load(tmp_path: Path) -> None:
    """Which have the release's names."""
    network = randomised(SAM(1, **SAM.tiny))
    torch.save(network.state_dict(), tmp_path / "sam.pth")
    copy = SAM(1, **SAM.tiny, weights=str(tmp_path / "sam.pth"))
    assert all(torch.equal(*pair) for pair in zip(copy.parameters(), network.parameters(), strict=True))


def test_positions_of_another_grid_are_interpolated(tmp_path: Path) -> None:
    network = SAM(1, **SAM.tiny)
    state = network.state_dict()
    state["image_encoder.pos_embed"] = torch.linspace(-1, 1, 8)[None, :, None, None].expand(1, 8, 8, 32)
    state["image_encoder.blocks.1.attn.rel_pos_h"] = torch.linspace(-1, 1, 15)[:, None].expand(15, 16)
    torch.save(state, tmp_path / "sam.pth")
    larger = SAM(1, **{**SAM.tiny, "image_size": 256}, weights=str(tmp_path / "sam.pth")).image_encoder
    inner = torch.linspace(-1, 1, 8).lerp(torch.zeros(8), 0)  # rows keep their place in the image
    rows = larger.pos_embed[0, :, 3, 0]
    torch.testing.assert_close(rows.unflatten(0, (8, 2)).mean(1)[1:-1], inner[1:-1], atol=0.02, rtol=0)
    distances = larger.blocks[1].attn.rel_pos_h
    assert distances.shape == (31, 16)
    assert distances[15].abs().max() < 1e-6  # none
    assert (distances.diff(dim=0) >= 0).all()
    window = network.image_encoder.blocks[0].attn.rel_pos_h
    assert torch.equal(larger.blocks[0].attn.rel_pos_h, window)


def test_weights_of_rgb_are_fitted_to_other_channels(tmp_path: Path) -> None:
    torch.save(SAM(1, **SAM.tiny).state_dict(), tmp_path / "sam.pth")
    with pytest.warns(UserWarning, match="these have 1 channel: the weights of the first convolution are summed"):
        network = SAM(1, **SAM.tiny, in_channels=1, weights=str(tmp_path / "sam.pth"))
    assert network.embed(torch.randn(1, 1, 50, 128))[0].shape == (1, 256, 8, 8)


def test_weights_of_another_size_are_named(tmp_path: Path) -> None:
    state = variant("SAM, ViT-L").state_dict()
    torch.save({k: torch.zeros(()).expand(v.shape) for k, v in state.items()}, tmp_path / "sam.pth")
    message = (
        r"sam\.pth is of SAM, ViT-L \(24 blocks of width 1024 in the image encoder\) and this network is SAM, ViT-B "
        r"\(12 blocks of width 768 in the image encoder\)"
    )
    with hollow(), pytest.raises(SegfolioError, match=message):
        SAM(1, weights=str(tmp_path / "sam.pth"))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"image_encoder.layers.0.conv.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(SegfolioError, match=r"other\.pth: \d+ of the weights are missing: image_encoder"):
        SAM(1, **SAM.tiny, weights=str(tmp_path / "other.pth"))
    with pytest.raises(SegfolioError, match=r"sam_vit_b is neither a file nor a repository of the hub"):
        SAM(1, **SAM.tiny, weights="sam_vit_b")


def test_weights_of_other_windows_are_refused(tmp_path: Path) -> None:
    torch.save(SAM(0, **SAM.tiny).state_dict(), tmp_path / "sam.pth")
    given = {**SAM.tiny, "weights": str(tmp_path / "sam.pth")}
    SAM(0, **{**given, "image_size": 96})  # positions are interpolated
    for other in ({"window": 4}, {"global_blocks": (0,)}, {"global_blocks": (0,), "image_size": 96}):
        with pytest.raises(SegfolioError, match=r"window: 3 and global_blocks: \[1\], and this network has window: "):
            SAM(0, **{**given, **other})


@pytest.mark.slow
def test_the_base_size_is_transformers_on_a_portrait_image(tmp_path: Path) -> None:
    config = SamConfig(mask_decoder_config={"layer_norm_eps": 1e-5})  # type: ignore[call-arg]
    theirs = randomised(SamModel(config).eval())
    torch.save(theirs.state_dict(), tmp_path / "sam.pth")
    ours, size = SAM(1, weights=str(tmp_path / "sam.pth")).eval(), (1024, 771)
    assert_equal(ours, theirs, torch.randn(1, 3, *size), of_kind("box + point", size, 256, images=1))
