"""`Remapped`: the same images under other classes."""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torchvision.tv_tensors import Mask

from segfolio.data import remap as module
from segfolio.data.checks.fingerprint import fingerprint
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.datasets import ADE20K, ISBI2012, CamVid, CocoInstances, CocoPanoptic, Shapes
from segfolio.data.datasets.cityscapes import Cityscapes
from segfolio.data.datasets.coco_stuff import COCOStuff164k
from segfolio.data.datasets.voc import VOC
from segfolio.data.formats import rle
from segfolio.data.formats.coco import read_json
from segfolio.data.formats.images import read_id_map, write_id_map
from segfolio.data.image_space import GREY
from segfolio.data.labels import LabelSpace
from segfolio.data.module import DataModule
from segfolio.data.panoptic_truth import panoptic_truth
from segfolio.data.remap import Remapped, preset
from segfolio.data.sample import Federated, Sample, Target, to_image
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.conftest import REPOSITORY
from tests.fake import camvid, coco_instances, coco_panoptic, isbi2012

LABELS = LabelSpace(
    names=("void-ish", "grass", "sand", "car", "van", "sky"),
    things=("car", "van"),
    background="void-ish",
    palette=((0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4), (5, 5, 5)),
)
REMAP = {"sky": None, "van": "vehicle", "grass": "ground", "car": "vehicle", "sand": "ground"}
SEMANTIC = [[0, 1, 2, 3, 4, 5, 255]]
PLACES = [[0, 1, 2, 3, 4, 5, 5]]  # the segments' ids, of the labels 1, 2, 3, 4 and 5
SHAPES = dict.fromkeys(Shapes.labels.names[:4], "stuff") | dict.fromkeys(Shapes.labels.names[4:], "thing")


class One(SegmentationDataset):
    """One image with one row of pixels."""

    labels = LABELS

    def __init__(self, form: str = "id map", dtype: Any = np.uint8) -> None:
        ids = np.array(PLACES, np.int32)
        masks = np.arange(1, 6)[:, None, None] == ids
        forms = {"id map": torch.from_numpy(ids), "rles": rle.encode(masks), "masks": Mask(torch.from_numpy(masks))}
        labels, crowd = torch.arange(1, 6), torch.tensor([False, False, False, True, False])
        segments = Segments(forms[form], labels, crowd, (1, 7))
        semantic = Mask(torch.from_numpy(np.array(SEMANTIC, dtype)))
        self.target: Target | None = Target(semantic, segments, number=7)

    def __len__(self) -> int:
        return 1

    def read(self, index: int) -> Sample:
        return Sample(to_image(np.zeros((1, 7, 3), np.uint8)), "one", (1, 7), self.target)


def target(dataset: SegmentationDataset) -> Target:
    found = dataset[0].target
    assert found is not None
    return found


def test_new_classes_come_in_the_order_of_the_mapping_with_kind_and_colour_of_their_first_source() -> None:
    labels = Remapped(One(), REMAP).labels
    assert labels.names == ("void-ish", "vehicle", "ground")  # the background, which is not named, first
    assert labels.things == ("vehicle",)
    assert labels.background == "void-ish"
    assert labels.palette == ((0, 0, 0), (4, 4, 4), (1, 1, 1))
    assert labels.ignore_index == 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_pixel_of_a_semantic_map_gets_its_new_class(dtype) -> None:
    semantic = target(Remapped(One(dtype=dtype), REMAP)).semantic
    assert isinstance(semantic, Mask)
    assert semantic.dtype == torch.uint8
    assert semantic.tolist() == [[0, 2, 2, 1, 1, 255, 255]]


def test_a_background_that_is_named_is_a_class_like_others() -> None:
    labels = Remapped(One(), {**REMAP, "void-ish": "ground"}).labels
    assert (labels.names, labels.background) == (("vehicle", "ground"), "ground")
    labels = Remapped(One(), {**REMAP, "void-ish": None}).labels
    assert (labels.names, labels.background) == (("vehicle", "ground"), None)


def test_segments_of_classes_that_are_left_out_are_dropped() -> None:
    found = target(Remapped(One("rles"), REMAP))
    assert found.number == 7
    segments, before = found.segments, target(One("rles")).segments
    assert segments is not None
    assert before is not None
    assert segments.labels.tolist() == [2, 2, 1, 1]
    assert segments.crowd.tolist() == [False, False, False, True]
    assert segments.rles == before.rles[:4]


def test_run_lengths_and_masks_keep_their_form_undecoded(monkeypatch) -> None:
    masks, rles = (Remapped(One(form), REMAP) for form in ("masks", "rles"))
    for name in ("decode", "encode", "to_id_map", "from_id_map"):
        monkeypatch.setattr(rle, name, lambda *_: pytest.fail("decoded or encoded"))
    for dataset, kind in ((masks, Mask), (rles, list)):
        segments = target(dataset).segments
        assert segments is not None
        assert isinstance(segments.form, kind)


def test_in_an_id_map_stuff_becomes_one_segment_and_things_stay_apart() -> None:
    """As panoptic quality has it: of a stuff class there is one segment in an image."""
    segments = target(Remapped(One(), REMAP)).segments
    assert segments is not None
    assert segments.id_map.tolist() == [[0, 1, 1, 2, 3, 0, 0]]
    assert segments.labels.tolist() == [2, 1, 1]
    assert segments.crowd.tolist() == [False, False, True]


def test_an_image_of_which_no_segment_is_left_has_none() -> None:
    remap = dict.fromkeys(LABELS.names[1:], None)
    for form in ("id map", "rles", "masks"):
        segments = target(Remapped(One(form), remap)).segments
        assert segments is not None
        assert len(segments) == 0
        assert segments.masks.shape == (0, 1, 7)


@pytest.mark.parametrize(
    ("present", "absent", "not_exhaustive", "then"),
    [
        ((), (3, 4), (), Federated((0,))),  # neither cars nor vans
        ((), (3,), (), Federated()),  # there may be vans
        ((3,), (4,), (), Federated()),  # all that there are
        ((3,), (), (), Federated((), (0,))),  # and perhaps vans
        ((3,), (4,), (3,), Federated((), (0,))),
        ((3, 4), (), (), Federated()),
        ((5,), (1, 2), (5,), Federated((1,))),  # the sky is none of the classes any more
    ],
)
def test_of_a_merged_class_an_image_is_known_to_have_all_or_none_if_it_is_of_every_source(
    present, absent, not_exhaustive, then
) -> None:
    labels = torch.tensor(present, dtype=torch.int64)
    segments = Segments(torch.zeros(len(present), 1, 7, dtype=torch.bool), labels, torch.zeros(len(present)).bool())
    remap = {"car": "vehicle", "van": "vehicle", "grass": "ground", "sand": "ground", "sky": None, "void-ish": None}
    dataset = One()
    dataset.target = Target(segments=segments, federated=Federated(absent, not_exhaustive))
    dataset.labels = replace(LABELS, frequencies=("rare", "common", "rare", "frequent", "common", "rare"))
    remapped = Remapped(dataset, remap)
    assert remapped[0].target.federated == then
    assert remapped.labels.frequencies == ("frequent", "common")


def test_a_sample_without_truth_stays_so() -> None:
    dataset = One()
    dataset.target = None
    assert Remapped(dataset, REMAP)[0].target is None


@pytest.mark.parametrize(
    ("remap", "says"),
    [
        ({**REMAP, "gras": "ground"}, "names 'gras', which is no class of One; did you mean 'grass'?"),
        ({"car": "car", "van": None}, "leaves out grass, sand, sky of One; give each its new class, or null"),
        (dict.fromkeys(LABELS.names), "maps every class of One to null"),
        ("coco80_to_voc", "no remap preset 'coco80_to_voc'; did you mean 'coco80_to_voc20'?"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(remap, says) -> None:
    with pytest.raises(SegfolioError, match=r"^[^\n]*$") as error:
        Remapped(One(), remap)
    assert says in str(error.value)


PRESETS = {
    "coco80_to_voc20": (80, 20),
    "coco80_to_voc20_background": (80, 21),
    "cocostuff171_to_27": (171, 27),
    "ade150_to_27": (150, 27),
    "mapillary_to_cityscapes19": (65, 19),
    "cityscapes19_to_mapillary": (19, 18),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_covers_every_class_once(name) -> None:
    groups = yaml.safe_load(Path(module.__file__).with_name("remap_presets.yaml").read_text())[name]
    sources = [source for group in groups.values() for source in group]
    assert all(isinstance(source, str) for source in sources)
    assert max(Counter(sources).values()) == 1
    assert (len(sources), len(groups.keys() - {None})) == PRESETS[name]


def test_the_presets_name_the_classes_of_the_datasets() -> None:
    for name, names in {
        "cocostuff171_to_27": COCOStuff164k.labels.names,
        "coco80_to_voc20": COCOStuff164k.labels.things,
        "ade150_to_27": ADE20K.labels.names,
        "cityscapes19_to_mapillary": Cityscapes.labels.names,
    }.items():
        assert set(preset(name)) == set(names)
    for name, names in {
        "coco80_to_voc20": VOC.labels.names[1:],  # 0 is the background
        "mapillary_to_cityscapes19": Cityscapes.labels.names,
    }.items():
        assert tuple(dict.fromkeys(filter(None, preset(name).values()))) == names


def test_the_groups_of_coco_stuff_are_its_supercategories(real_data) -> None:
    categories = read_json(real_data / "coco_panoptic" / "panoptic_coco_categories.json")
    stuff = preset("cocostuff171_to_27")
    groups = {c["name"]: c["supercategory"] for c in categories if c["name"] in stuff}
    assert len(groups) == 80 + 36  # COCO panoptic merges the other stuff classes
    assert {name: stuff[name] for name in groups} == groups


def test_the_two_ways_between_mapillary_and_cityscapes_agree() -> None:
    there, back = preset("mapillary_to_cityscapes19"), preset("cityscapes19_to_mapillary")
    assert [name for name, to in back.items() if to is None] == ["rider"]
    assert all(there[to] == name for name, to in back.items() if to)


def test_coco_is_told_in_the_order_of_voc(tmp_path) -> None:
    coco_instances.write(tmp_path)
    dataset = CocoInstances(tmp_path, "train", background="background")
    only = {name: to for name, to in preset("coco80_to_voc20").items() if name in dataset.labels.names}
    remapped = Remapped(dataset, only)
    assert remapped.labels.names == ("background", "dog", "person")
    old, new = target(dataset), target(remapped)
    assert old.semantic is not None
    assert new.semantic is not None
    assert [remapped.labels.names[c] for c in np.unique(new.semantic) if c != 255] == ["background", "dog", "person"]
    for name in remapped.labels.names:
        places = [labels.names.index(name) for labels in (dataset.labels, remapped.labels)]
        assert torch.equal(old.semantic == places[0], new.semantic == places[1])
    assert new.number == old.number


def test_panoptic_truth_has_one_segment_of_a_merged_stuff_class(tmp_path) -> None:
    coco_panoptic.write(tmp_path)
    dataset = CocoPanoptic(tmp_path, "train")
    remap = {"person": "person", "car": None, "road": "ground", "grass-merged": "ground", "sky-other-merged": "sky"}
    remapped = Remapped(dataset, remap)
    truth = panoptic_truth(target(remapped), remapped.labels)
    assert truth.labels.tolist() == [1, 2, 0, 0]
    ids, semantic = truth.id_map.numpy(), target(dataset).semantic
    assert semantic is not None
    assert np.array_equal(ids == 1, np.isin(semantic, [2, 4]))


def test_what_is_wrong_with_the_files_is_told_as_before(tmp_path) -> None:
    isbi2012.write(tmp_path)
    dataset = Remapped(ISBI2012(tmp_path, "train"), {"cell": "cell", "membrane": "membrane"})
    assert dataset.image_space == GREY
    assert dataset.image_id(3) == "3"
    assert dataset.unlike_published("train") is None
    assert list(dataset.files()) == list(dataset.dataset.files())
    (tmp_path / "label" / "3.png").unlink()
    with pytest.raises(SegfolioError, match=r"^24 images: 1 mask missing"):
        dataset.check()


def test_inspection_counts_the_new_classes_and_finds_the_old_faults(tmp_path) -> None:
    camvid.write(tmp_path)
    remap = {name: "ground" if name in ("road", "pavement") else None for name in CamVid.labels.names}
    opened = {"train": lambda: Remapped(CamVid(tmp_path, "train"), remap)}
    assert not any(p.fatal for p in inspect_dataset(opened).problems)
    mask = CamVid(tmp_path, "train").pairs[0].mask
    assert mask is not None
    write_id_map(mask, np.full_like(read_id_map(mask), 77))
    assert "label id 77 is not in the label space" in str(inspect_dataset(opened).problems)


def test_the_fingerprint_is_of_the_mapping_too(tmp_path, monkeypatch) -> None:
    """Also where it leads to the same classes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dataset = Shapes(size=(32, 32), train=2)
    names = dataset.labels.names
    one, two = (dict.fromkeys(names[:4], "stuff") | things for things in (_halves(names, 2), _halves(names, 3)))
    found = [fingerprint(Remapped(dataset, remap)) for remap in (one, two)]
    assert len({*found, fingerprint(dataset)}) == 3
    assert fingerprint(Remapped(Shapes(size=(32, 32), train=2), one)) == found[0]
    assert fingerprint(Remapped(Shapes(size=(32, 32), train=2, seed=1), one)) != found[0]


def _halves(names: tuple[str, ...], first: int) -> dict[str, str]:
    return {name: "a" if place < first else "b" for place, name in enumerate(names[4:])}


def test_the_data_module_remaps_every_split() -> None:
    data = DataModule(partial(Shapes, size=(32, 32), train=2, val=2, test=2), remap=SHAPES, num_workers=0)
    assert data.labels.names == ("stuff", "thing")
    for name in ("train", "val", "test"):
        data.split(name).check()
        semantic = target(data.split(name)).semantic
        assert semantic is not None
        assert set(np.unique(semantic)) <= {0, 1}


TINY = [
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
    "--data.dataset.init_args.size=[48, 64]",
    "--data.dataset.init_args.train=4",
    "--data.dataset.init_args.val=2",
    "--data.dataset.init_args.test=2",
    "--data.batch_size=2",
    "--model.init_args.architecture.init_args.width=4",
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
]


def test_a_network_trains_and_is_tested_on_the_new_classes(segfolio, capsys) -> None:
    config = REPOSITORY / "experiments/unet/shapes_small.yaml"
    mapping = "{" + ", ".join(f"{a}: {'null' if a == 'sky' else b}" for a, b in SHAPES.items()) + "}"
    assert segfolio("fit", "-c", config, *TINY, f"--data.remap={mapping}", "--output=run") == 0
    stored = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert stored["segfolio"]["labels"]["names"] == ("stuff", "thing")
    assert stored["state_dict"]["network.classifier.weight"].shape[0] == 2
    assert segfolio("test", "--ckpt_path=run/checkpoints/last.ckpt") == 0
    told = capsys.readouterr().out
    assert "thing" in told
    assert "circle" not in told
    assert segfolio("fit", "-c", config, *TINY, "--data.remap={sky: sky}") == 2
    assert "data.remap leaves out circle, grass, sand" in capsys.readouterr().err
