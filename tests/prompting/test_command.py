"""`segfolio prompt`: from a run or released weights to masks, scores and pictures, and what a mistake is told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from segfolio.architectures.promptable.sam import SAM
from segfolio.cli import main
from segfolio.data.formats import rle
from segfolio.data.formats.images import read_id_map, read_image, write_image
from segfolio.data.image_space import GREY
from segfolio.inference.interactive import Interactive
from tests.inference.sam_pair import picture, sam_pair

SIZE = (40, 52)
LOOSE = {"points_per_side": 5, "iou_threshold": 0.4, "stability_threshold": 0.2, "stability_offset": 0.05}


def config(family: str = "Promptable", **network: Any) -> dict[str, Any]:
    arguments = {"class_path": "segfolio.architectures.promptable.sam.SAM", "init_args": {**SAM.tiny, **network}}
    few = {"max_objects": 1, "clicks": 1, "pauses": 0}
    shapes = {"size": [32, 48], "train": 1, "val": 1, "test": 1}
    return {
        "model": {
            "class_path": f"segfolio.families.{family}",
            "init_args": {
                "architecture": arguments,
                "prompts": few,
                "predict_with": LOOSE,
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}},
            },
        },
        "data": {
            "dataset": {"class_path": "segfolio.data.datasets.Shapes", "init_args": shapes},
            "batch_size": 1,
            "num_workers": 0,
        },
        "trainer": {"accelerator": "cpu", "max_steps": 1, "limit_val_batches": 0},
    }


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights under SAM's names, an experiment of them, a run that began with them, and two images."""
    folder = tmp_path_factory.mktemp("given")
    torch.save(sam_pair()[0].state_dict(), folder / "sam.pth")
    (folder / "sam.yaml").write_text(yaml.safe_dump(config(weights=str(folder / "sam.pth"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "-c", "sam.yaml", "--output=run", "--trainer.enable_progress_bar=false"]) == 0
    (folder / "sam.pth").rename(folder / "weights.pth")  # a run needs them no more
    (folder / "sam.yaml").write_text(yaml.safe_dump(config(weights=str(folder / "weights.pth"))))
    write_image(folder / "one.png", picture(*SIZE))
    write_image(folder / "two.png", picture(*SIZE)[:, ::-1].copy())
    return folder


def results(folder: str) -> list[dict[str, Any]]:
    return json.loads(Path(folder, "instances.json").read_text())


def mask_of(result: dict[str, Any]) -> np.ndarray:
    return rle.decode([rle.from_segmentation(result["segmentation"], SIZE)], SIZE)[0]


def test_objects_are_asked_for_by_points_and_boxes(segfolio, given: Path, capsys) -> None:
    asked = ["--point", "10,20", "--point", "40,5,0", "--box", "3,4,30,36", "--box", "20,8,50,30", "--object"]
    images = [given / "one.png", given / "two.png"]
    command = ["prompt", "--ckpt_path", given / "run", "--image", *images, *asked, "--point=7,8", "--output", "out"]
    assert segfolio(*command) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "masks, scores and overlays: out" in printed
    found = results("out")
    assert [x["image_id"] for x in found] == ["one"] * 3 + ["two"] * 3
    assert {x["category_id"] for x in found} == {1}
    session = Interactive(sam_pair()[0])
    for name in ("one", "two"):
        session.set_image(given / f"{name}.png")
        answers = []
        for clicks, box in (([(10, 20, 1), (40, 5, 0)], (3, 4, 30, 36)), ([], (20, 8, 50, 30)), ([(7, 8, 1)], None)):
            session.next_object()
            answers.append(session.ask(clicks, box))
        of_image = [x for x in found if x["image_id"] == name]
        prompts = json.loads(Path("out/prompts", f"{name}.json").read_text())
        for number, (answer, result, prompt) in enumerate(zip(answers, of_image, prompts, strict=True), 1):
            assert (mask_of(result) == answer.mask).all()
            assert result["score"] == pytest.approx(answer.score)
            assert f"{answer.score:.2f}" in printed
            written = read_image(Path(f"out/masks/{name}_{number}.png"), GREY)[..., 0]
            assert (written == 255 * answer.mask).all()
            assert prompt["scores"] == pytest.approx(answer.scores)
        assert prompts[0]["points"] == [[10, 20, 1], [40, 5, 0]]
        assert prompts[0]["box"] == [3, 4, 30, 36]
        candidates = [read_image(Path(f"out/candidates/{name}_3_{n}.png"), GREY)[..., 0] for n in range(3)]
        assert (np.stack(candidates) == 255 * answers[2].candidates).all()
        assert read_image(Path(f"out/overlay/{name}.png")).shape == (600, 780, 3)
    assert not Path("out/candidates/one_1_0.png").exists()


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_a_network_of_any_precision_is_trained_and_asked(segfolio, given: Path, capsys, precision: str) -> None:
    command = ["fit", "-c", given / "sam.yaml", "--output=run", "--trainer.logger=false"]
    assert segfolio(*command, f"--trainer.precision={precision}") == 0, capsys.readouterr().err
    assert segfolio("prompt", "--ckpt_path=run", "--image", given / "one.png", "--point", "10,20", "--output=out") == 0
    assert {result["image_id"] for result in results("out")} == {"one"}


def test_weights_without_a_training_answer_as_the_run_that_began_with_them(segfolio, given: Path, capsys) -> None:
    asked = ["--image", given / "one.png", "--point", "10,20"]
    assert segfolio("prompt", "-c", given / "sam.yaml", *asked) == 0, capsys.readouterr().err
    assert segfolio("prompt", "--ckpt_path", given / "run/checkpoints/last.ckpt", *asked) == 0, capsys.readouterr().err
    assert results("prompted") == results(str(given / "run/prompted"))
    both = ["-c", given / "sam.yaml", "--ckpt_path", given / "run/checkpoints"]
    assert segfolio("prompt", *both, "--image", given / "two.png", "--point", "1,1") == 0, capsys.readouterr().err
    assert results(str(given / "run/prompted"))[0]["image_id"] == "two"


def test_everything_is_an_id_map_and_coco_results(segfolio, given: Path, capsys) -> None:
    command = ["prompt", "--ckpt_path", given / "run", "--image", given / "one.png", "--everything", "--output=out"]
    assert segfolio(*command, "--predict_with.nms_threshold", "0.95") == 0, capsys.readouterr().err
    found = results("out")
    assert len(found) > 3
    assert all(x["stability"] >= 0.2 and x["score"] > 0.4 and len(x["point"]) == 2 for x in found)
    ids = read_id_map(Path("out/instances/one.png"))
    masks = np.stack([mask_of(x) for x in found])
    areas = masks.sum((1, 2))
    smallest = np.where(masks, areas[:, None, None], 10**6).min(0)
    assert (np.append(10**6, areas)[ids] == smallest).all()
    assert read_image(Path("out/overlay/one.png")).shape == (*SIZE, 3)
    assert segfolio(*command, "--predict_with.iou_threshold=1000") == 0
    assert results("out") == []


def test_an_image_that_was_read_is_never_written_over(segfolio, given: Path, capsys) -> None:
    write_image(Path("overlay/one.png"), picture(*SIZE))
    command = ["prompt", "-c", given / "sam.yaml", "--image", "overlay/one.png", "--point", "1,1", "--output", "."]
    assert segfolio(*command) == 2
    assert "overlay/one.png was read and would be written over; give another --output" in capsys.readouterr().err
    assert (read_image(Path("overlay/one.png")) == picture(*SIZE)).all()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "`segfolio prompt` needs --point X,Y or --box X1,Y1,X2,Y2, or else --everything"),
        (["--object"], "`segfolio prompt` needs --point"),
        (["--point", "1,1", "--everything"], "--everything is asked for without --point and --box; leave out one"),
        (["--point", "52,1"], "one.png: a click is at x 52, y 1, outside the image of 52x40 pixels"),
        (["--point=-1,1"], "one.png: a click is at x -1, y 1, outside the image"),
        (["--point", "-5,3"], "one.png: a click is at x -5, y 3, outside the image of 52x40 pixels"),
        (["--point", "-.5,3,0"], "one.png: a click is at x -0.5, y 3, outside the image"),
        (["--box", "-9,1,-2,7"], "one.png: a box is -9, 1, -2, 7; expected left, top, right, bottom"),
        (["--point", "-o,3"], "--point: expected one argument"),
        (["--point", "1,1,2"], "--point: the label of '1,1,2' is 2; expected 1 (on the object) or 0 (beside it)"),
        (["--point", "1"], "--point: '1' is no point; expected X,Y or X,Y,0; see `segfolio prompt --help`"),
        (["--point", "a,b"], "--point: 'a,b' is no point; expected X,Y or X,Y,0"),
        (["--box", "9,1,9,7"], "--box: '9,1,9,7' is no box; expected X1,Y1,X2,Y2 with X1 < X2 and Y1 < Y2"),
        (["--box", "60,1,70,7"], "one.png: a box is 60, 1, 70, 7; expected left, top, right, bottom"),
        (["--point", "1,1", "--pont", "2,2"], "unrecognized arguments: --pont; see `segfolio prompt --help`"),
        (["--everything", "--predict_with.points_per_side=0"], "points_per_side is 0, expected 1 or more"),
        (["--everything", "--predict_with.points=3"], "points"),
        (["--point", "1,1", "--image", "missing.png"], "missing.png cannot be read: no such file or directory"),
        (["--point", "1,1", "--image", "bad.png"], "bad.png cannot be decoded: it is damaged or no image"),
        (
            ["--point", "1,1", "--image", "a/one.png", "b/one.png"],
            "a/one.png and b/one.png would both be written as one",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(segfolio, given: Path, capsys, asked, said: str) -> None:
    Path("bad.png").write_bytes(b"no image")
    assert segfolio("prompt", "-c", given / "sam.yaml", "--image", given / "one.png", "--output=out", *asked) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_a_file_in_the_way_of_the_output_is_told_before_anything_is_asked(segfolio, given: Path, capsys) -> None:
    Path("out").write_text("mine")
    asked = ["--image", given / "one.png", "--point", "1,1", "--output=out"]
    assert segfolio("prompt", "-c", given / "sam.yaml", *asked) == 2
    assert "out is a file, expected a folder to write to" in capsys.readouterr().err
    assert Path("out").read_text() == "mine"


def test_windows_are_those_of_the_test_or_as_asked(segfolio, given: Path, capsys) -> None:
    content = config(weights=str(given / "weights.pth"))
    boxes = {"class_path": "segfolio.inference.prompt_protocols.Boxes", "init_args": {"window": 24}}
    content["model"]["init_args"]["test"] = {"protocol": boxes}
    Path("windows.yaml").write_text(yaml.safe_dump(content))
    asked = ["--image", given / "one.png", "--box", "3,4,20,22"]
    found = []
    for more in (["-c", "windows.yaml"], ["-c", given / "sam.yaml", "--window=24"], ["-c", given / "sam.yaml"]):
        assert segfolio("prompt", *more, *asked) == 0, capsys.readouterr().err
        found.append(mask_of(results("prompted")[0]))
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()
    assert not found[0][24:].any()
    assert not found[0][:, 24:].any()


def test_nothing_found_is_said_and_weights_can_be_given(segfolio, given: Path, monkeypatch, capsys) -> None:
    said: list[str] = []
    monkeypatch.setattr("segfolio.prompting.command.rank_zero_warn", said.append)
    Path("sam.yaml").write_text(yaml.safe_dump(config()))
    weights = f"--model.init_args.architecture.init_args.weights={given / 'weights.pth'}"
    asked = ["-c", "sam.yaml", weights, "--image", given / "one.png"]
    assert segfolio("prompt", *asked, "--everything", "--predict_with.iou_threshold=99") == 0, capsys.readouterr().err
    assert said == [f"{given / 'one.png'}: no mask is above the thresholds; give a lower --predict_with.iou_threshold"]
    assert segfolio("prompt", *asked, "--box", "3,4,20,22") == 0
    expected = results("prompted")
    assert segfolio("prompt", "-c", given / "sam.yaml", "--image", given / "one.png", "--box", "3,4,20,22") == 0
    assert results("prompted") == expected


def test_the_student_of_a_distillation_is_asked(segfolio, given: Path, capsys) -> None:
    content = config("Distillation", weights=str(given / "weights.pth"))
    arguments = content["model"]["init_args"]
    del arguments["prompts"], arguments["predict_with"]
    arguments["teacher"] = arguments["architecture"]
    Path("distilled.yaml").write_text(yaml.safe_dump(content))
    asked = ["--image", given / "one.png", "--point", "10,20"]
    assert segfolio("prompt", "-c", given / "sam.yaml", *asked) == 0
    expected = results("prompted")
    assert segfolio("prompt", "-c", "distilled.yaml", *asked) == 0, capsys.readouterr().err
    assert results("prompted") == expected
    assert segfolio("fit", "-c", "distilled.yaml", "--output=run") == 0, capsys.readouterr().err
    assert segfolio("prompt", "--ckpt_path=run", *asked) == 0, capsys.readouterr().err
    assert results("run/prompted") == expected


def test_a_network_that_is_not_prompted_or_not_there_is_one_sentence(segfolio, given: Path, capsys) -> None:
    asked = ["--image", given / "one.png", "--point", "1,1"]
    assert segfolio("prompt", *asked) == 2
    assert "`segfolio prompt` needs an experiment: -c CONFIG, or --ckpt_path of a run" in capsys.readouterr().err
    Path("other.yaml").write_text(yaml.safe_dump(config("PerPixel")))
    assert segfolio("prompt", "-c", "other.yaml", *asked) == 2
    said = "other.yaml is of segfolio.families.PerPixel, which is not asked by points and boxes; give a config or a"
    assert said in capsys.readouterr().err
    assert segfolio("prompt", "--ckpt_path", "missing.ckpt", *asked) == 2
    assert "there is no checkpoint missing.ckpt" in capsys.readouterr().err
    Path("larger.yaml").write_text(yaml.safe_dump(config(depth=3)))
    assert segfolio("prompt", "-c", "larger.yaml", "--ckpt_path", given / "run", *asked) == 2
    assert "the checkpoint and the network disagree on" in capsys.readouterr().err
