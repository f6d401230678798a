"""`init_from`: a run starts from the weights of another, class by class."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segfolio.architectures.encoder_decoder.fcn import FCN
from segfolio.architectures.encoder_decoder.segnet import SegNet, SegNetBasic
from segfolio.architectures.encoder_decoder.unet import UNet
from segfolio.architectures.mask_classification.maskformer import MaskFormer
from segfolio.architectures.region_based.mask_rcnn import MaskRCNN
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError
from segfolio.families import Detection, MaskClassification, PerPixel
from segfolio.losses import CrossEntropy, MaskClassificationLoss
from tests.conftest import REPOSITORY

Architecture = Callable[[int], nn.Module]
OLD = ("sky", "road", "car", "tree")
NETWORKS = {
    "U-Net": partial(UNet, width=4, depth=2),  # of 4 classes: not only the last layer has a dimension of 4
    "FCN-8s": partial(FCN, **FCN.tiny),
    "FCN-8s, learnt upsampling": partial(FCN, **FCN.tiny, learned_upsampling=True),
    "SegNet": partial(SegNet, width=4),
}


class Dense(nn.Sequential):
    """Ends in a deconvolution from classes to classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(3, 7, 1), nn.Conv2d(7, num_classes, 1), nn.ConvTranspose2d(num_classes, num_classes, 2, stride=2)
        )


def family(architecture: Architecture, names: tuple[str, ...] = OLD, seed: int = 0, **arguments: Any) -> PerPixel:
    """With random values in every weight, and never the same under two seeds."""
    torch.manual_seed(seed)
    optimizer = partial(torch.optim.SGD, lr=0.1)

    def made(num_classes: int) -> nn.Module:
        network = architecture(num_classes)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
        return network

    return PerPixel(LabelSpace(names), made, {"ce": CrossEntropy()}, optimizer=optimizer, **arguments)


def saved(model: PerPixel, path: Path) -> str:
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return str(path)


def logits(model: PerPixel) -> dict[str, Tensor]:
    """Of each class, of one image."""
    image = torch.randint(0, 256, (1, 3, 40, 48), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        return dict(zip(model.labels.names, model.eval()(image)[0], strict=True))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "names",
    [
        OLD,
        ("car", "tree", "sky", "road"),  # another order
        ("tree", "bus", "sky", "hill"),  # as many, and others
        ("car", "bus", "sky"),
        ("bus", "hill"),
        ("bus", "tree", "car", "road", "sky", "hill"),
    ],
    ids=" ".join,
)
def test_classes_of_the_same_name_have_the_same_logits(tmp_path, name, names) -> None:
    old = family(NETWORKS[name])
    new = family(NETWORKS[name], names, seed=1, init_from=saved(old, tmp_path / "a.ckpt"))
    before, after, untouched = logits(old), logits(new), logits(family(NETWORKS[name], names, seed=1))
    for each in names:
        assert not torch.equal(after[each], untouched[each])
        if each in OLD:
            torch.testing.assert_close(after[each], before[each])


def test_new_classes_keep_their_initialisation(tmp_path) -> None:
    names = ("bus", "car", "hill", "sky", "tree")
    architecture = NETWORKS["U-Net"]
    old = family(architecture)
    new = family(architecture, names, seed=1, init_from=saved(old, tmp_path / "a.ckpt"))
    fresh = family(architecture, names, seed=1).network.state_dict()
    for key in ("classifier.weight", "classifier.bias"):
        rows, of_old = new.network.state_dict()[key], old.network.state_dict()[key]
        assert torch.equal(rows[[0, 2]], fresh[key][[0, 2]])
        assert torch.equal(rows[[1, 3, 4]], of_old[[2, 0, 3]])


def test_a_deconvolution_from_classes_to_classes_is_taken_over_in_both_dimensions(tmp_path) -> None:
    old, names = family(Dense), ("tree", "bus", "sky")
    new = family(Dense, names, seed=1, init_from=saved(old, tmp_path / "a.ckpt"))
    fresh = family(Dense, names, seed=1).network.state_dict()["2.weight"]
    got, of_old = new.network.state_dict()["2.weight"], old.network.state_dict()["2.weight"]
    for i, j, row, column in ((0, 2, 3, 0), (2, 0, 0, 3), (0, 0, 3, 3)):
        assert torch.equal(got[i, j], of_old[row, column])
    assert torch.equal(got[1], fresh[1])
    assert torch.equal(got[:, 1], fresh[:, 1])


@pytest.mark.parametrize("names", [("tree", "bus"), ("tree", "bus", "sky", "hill")], ids=" ".join)
def test_what_has_another_place_beside_the_classes_keeps_its_initialisation(tmp_path, names) -> None:
    """As the class that stands for no object: which place is its is not known."""

    def architecture(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 7, 1), nn.Conv2d(7, num_classes + 1, 1))

    old = family(architecture)
    new = family(architecture, names, seed=1, init_from=saved(old, tmp_path / "a.ckpt")).network.state_dict()
    assert torch.equal(new["1.weight"], family(architecture, names, seed=1).network.state_dict()["1.weight"])
    assert torch.equal(new["0.weight"], old.network.state_dict()["0.weight"])


def detector(names: tuple[str, ...], things: tuple[str, ...], seed: int = 0, **arguments: Any) -> Detection:
    """With random values in the rows of classes, never the same under two seeds."""
    torch.manual_seed(seed)
    architecture = partial(MaskRCNN, **MaskRCNN.tiny)
    labels = LabelSpace(names, things=things)
    return Detection(labels, architecture, optimizer=partial(torch.optim.SGD, lr=0.1), **arguments)


@pytest.mark.parametrize(
    ("names", "things", "rows"),
    [
        (("sky", "dog", "cat"), ("dog", "cat"), [0, 2, 1]),  # as many, in another order
        (("dog", "sky", "bus", "cat"), ("dog", "bus", "cat"), [0, 2, None, 1]),
        (("cat", "sky", "dog"), ("cat", "sky", "dog"), [0, 1, None, 2]),  # of the same names
        (("dog",), ("dog",), [0, 2]),
        (("bus", "car"), ("bus", "car"), [0, None, None]),
    ],
    ids=["another order", "another number", "stuff that is a thing", "fewer", "others"],
)
def test_regions_take_over_the_background_and_the_things_of_the_same_name(
    tmp_path, monkeypatch, names, things, rows
) -> None:
    """Scores have a row per class, boxes four, masks a map; stuff has none."""
    said: list[str] = []
    monkeypatch.setattr("segfolio.families.transfer.rank_zero_info", said.append)
    old = detector(("cat", "sky", "dog"), ("cat", "dog"))
    torch.manual_seed(2)
    for bias in (value for name, value in old.network.named_parameters() if name.endswith(".bias")):
        nn.init.normal_(bias)
    new = detector(names, things, seed=1, init_from=saved(old, tmp_path / "a.ckpt"))
    untaken = detector(names, things, seed=1)
    fresh, before, after = (model.network.state_dict() for model in (untaken, old, new))
    of_classes = {"box_predictor.cls_score": 1, "box_predictor.bbox_pred": 4, "mask_predictor.mask_fcn_logits": 1}
    for layer, each in of_classes.items():
        for key in (f"roi_heads.{layer}.weight", f"roi_heads.{layer}.bias"):
            here, there, untouched = (state[key].unflatten(0, (-1, each)) for state in (after, before, fresh))
            for place, row in enumerate(rows):
                assert torch.equal(here[place], untouched[place] if row is None else there[row])
    shared = [key for key in before if not any(layer in key for layer in of_classes)]
    assert all(torch.equal(after[key], before[key]) for key in shared)
    kept = [name for name in things if name in ("cat", "dog")]
    added = [name for name in things if name not in kept]
    assert f"classes taken over: {', '.join(kept) or 'none'}; new: {', '.join(added) or 'none'}" in said[0]
    assert "not taken" not in said[0]


def test_queries_take_over_the_classes_of_the_same_name_and_no_object(tmp_path) -> None:
    def queries(names: tuple[str, ...], seed: int, **arguments: Any) -> MaskClassification:
        torch.manual_seed(seed)
        architecture = partial(MaskFormer, **MaskFormer.tiny)
        recipe = {"criterion": MaskClassificationLoss(), "optimizer": partial(torch.optim.SGD, lr=0.1), **arguments}
        return MaskClassification(LabelSpace(names), architecture, "semantic", **recipe)

    old = queries(("sky", "road", "car"), 0)
    new = queries(("car", "bus", "sky"), 1, init_from=saved(old, tmp_path / "a.ckpt"))
    (key,) = (name for name in old.network.state_dict() if name.endswith("class_predictor.weight"))
    here, there = (model.network.state_dict()[key] for model in (new, old))
    assert torch.equal(here[[0, 2, 3]], there[[2, 0, 3]])
    assert not torch.equal(here[1], there[1])


def test_classes_whose_rows_are_not_taken_are_not_said_to_be(tmp_path, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("segfolio.families.transfer.rank_zero_info", said.append)

    def with_one_more(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 7, 1), nn.Conv2d(7, num_classes + 1, 1))

    path = saved(family(with_one_more), tmp_path / "a.ckpt")
    family(with_one_more, OLD[::-1], init_from=path)
    assert "classes taken over: none; new: tree, car, road, sky; not taken: 1.weight" in said[0]


def test_the_random_numbers_that_follow_are_the_same(tmp_path) -> None:
    """Also where the network is made twice."""
    path = saved(family(NETWORKS["U-Net"]), tmp_path / "a.ckpt")
    drawn = []
    for arguments in ({}, {"init_from": path}):
        family(NETWORKS["U-Net"], OLD[::-1], **arguments)
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_what_was_taken_over_is_said_in_one_sentence(tmp_path, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("segfolio.families.transfer.rank_zero_info", said.append)
    path = saved(family(NETWORKS["U-Net"]), tmp_path / "a.ckpt")
    deeper = partial(UNet, width=4, depth=3)
    family(deeper, ("car", "bus"), init_from=path)
    assert said[0].startswith(f"14 of 36 weights are taken from {path}; classes taken over: car; new: bus; not taken: ")
    assert "down.3.0.weight is [32, 16, 3, 3] here and missing there; " in said[0]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(SegNetBasic, id="another architecture"),
        pytest.param(partial(UNet, width=6, depth=2), id="another width"),
    ],
)
def test_a_checkpoint_of_which_nothing_fits_is_refused(tmp_path, other) -> None:
    path = saved(family(NETWORKS["U-Net"]), tmp_path / "a.ckpt")
    says = r"^nothing of .*a\.ckpt \(segfolio.*UNet\) fits segfolio.*: \S+ is \[.*\] here and (missing|\[.*\]) there; "
    with pytest.raises(SegfolioError, match=says):
        family(other, init_from=path)


def test_a_head_alone_is_nothing(tmp_path) -> None:
    """Two architectures can have like heads."""
    path = saved(family(partial(SegNetBasic, width=4)), tmp_path / "a.ckpt")
    with pytest.raises(SegfolioError, match=r"init_from takes a run of the same architecture"):
        family(NETWORKS["U-Net"], OLD[::-1], init_from=path)


def test_weights_that_no_run_has_left_are_refused(tmp_path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(SegfolioError, match=r"a\.ckpt does not say which network it is of"):
        family(Dense, init_from=str(tmp_path / "a.ckpt"))
    with pytest.raises(SegfolioError, match=r"there is no checkpoint .*b\.ckpt"):
        family(Dense, init_from=str(tmp_path / "b.ckpt"))


def test_a_run_that_started_from_another_is_tested_without_it(segfolio) -> None:
    small = [
        *("-c", REPOSITORY / "experiments/unet/shapes_small.yaml", "--data.num_workers=0", "--trainer.accelerator=cpu"),
        *("--data.dataset.init_args.size=[48, 64]", "--data.dataset.init_args.train=4", "--data.batch_size=2"),
        *("--data.dataset.init_args.val=2", "--data.dataset.init_args.test=2", "--trainer.max_steps=1"),
        "--model.init_args.architecture.init_args.width=4",
    ]
    merged = "--data.remap={sky: sky, water: null, grass: b, sand: b, circle: c, square: c, triangle: c, star: star}"
    assert segfolio("fit", *small, "--output=first") == 0
    assert (
        segfolio(
            *("fit", *small, merged, "--output=second", "--model.init_args.optimizer.init_args.lr=0.0"),
            "--model.init_args.init_from=first/checkpoints/last.ckpt",
        )
        == 0
    )
    first, second = (
        torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("first", "second")
    )
    head = "network.classifier.weight"
    assert torch.equal(second[head][[0, 3]], first[head][[0, 7]])  # sky and star
    Path("first/checkpoints/last.ckpt").unlink()
    assert segfolio("test", "--ckpt_path=second/checkpoints/last.ckpt") == 0
