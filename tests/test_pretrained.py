"""Models by name: `pretrained/`, checkpoints, and what is said where a name is no model."""

import json
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import common.pretrained
import common.training.run
import common.training.validation
from common.errors import UserError
from common.files import CHECKSUMS, write_checksums
from common.hub import load_matching, load_model, push_model
from common.pretrained import choose, choose_all, choose_to_reach, chosen_in_words, for_scale
from common.training.stop import StopRequest
from running import LATEST, SCRIPT, metrics, refusal, run_here
from running import SRGAN as SRGAN_SCRIPT
from train_a2n import A2N
from train_srcnn import SRCNN
from train_srgan import SRGAN
from train_vdsr import VDSR


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """`pretrained/` without a model."""
    monkeypatch.setattr(common.pretrained, "FOLDER", tmp_path / "pretrained")
    return tmp_path / "pretrained"


@pytest.fixture
def three(empty):
    """`pretrained/` with three small networks."""
    models = {
        "a2n-x2": A2N(2, "a2n-m", num_features=8),
        "srcnn-x3": SRCNN(3),
        "vdsr": VDSR([2, 3, 4], num_layers=3, num_features=8),
    }
    for name, model in models.items():
        model.save_pretrained(empty / name)
        write_checksums(empty / name)
    return empty


def message(action, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        action(*args, **options)
    assert len(f"{caught.value}") <= 400
    return f"{caught.value}"


@pytest.mark.parametrize(
    ("factor", "name"),
    # A last per cent is left to bicubic, and a picture that becomes smaller takes any model.
    [(0.5, "a2n-x2"), (2, "a2n-x2"), (2.01, "a2n-x2"), (2.1, "vdsr"), (9, "vdsr")],
)
def test_the_smallest_scale_that_reaches_a_size_is_chosen(three, factor, name):
    assert choose_to_reach(factor) == name


def test_the_best_network_that_reaches_a_size_is_chosen(three):
    A2N(4, "a2n-m", num_features=8).save_pretrained(three / "a2n-x4")
    assert [choose_to_reach(factor) for factor in (2, 2.1, 3, 9)] == ["a2n-x2", *["a2n-x4"] * 3]


NAMES = "Models of this repository: a2n-x2, srcnn-x3, vdsr."


def test_models_are_found_by_name(three):
    assert load_model("a2n-x2").scale == 2
    assert load_model("vdsr", scale=4).scale == 4
    model = A2N(2, "a2n-m", num_features=8)
    assert load_matching(model, "a2n-x2").complete
    expected = load_file(three / "a2n-x2" / "model.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_a_folder_of_that_name_comes_first(three, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SRCNN(4).save_pretrained("a2n-x2")
    assert type(load_model("a2n-x2")).__name__ == "SRCNN"
    text = message(load_model, "vdsr", "main")
    assert "Revision main is of models on the Hub, and vdsr is a folder here." in text


def test_the_best_network_for_a_scale_is_chosen(three):
    assert choose(None) == choose(2) == "a2n-x2"
    assert for_scale(3) == ["vdsr", "srcnn-x3"]
    assert choose(4) == "vdsr"
    assert message(choose, 2, photo=True).startswith("No model here is for --photo; leave it out")
    assert message(choose, 8) == f"No model here enlarges by 8; train one. {NAMES}"
    assert choose_all(None) == [("a2n-x2", 2), ("srcnn-x3", 3), *(("vdsr", x) for x in (2, 3, 4))]
    assert choose_all(3) == [("srcnn-x3", 3), ("vdsr", 3)]
    assert chosen_in_words("a2n-x2") == "Model: a2n-x2, of this repository."
    shutil.copytree(three / "a2n-x2", three / "a2n-x2-photo")
    assert for_scale(2) == ["a2n-x2", "a2n-x2-photo", "vdsr"]
    assert choose(2, photo=True) == choose_to_reach(3.5, photo=True) == "a2n-x2-photo"
    assert "without loss; --photo chooses the one for JPEG." in chosen_in_words("a2n-x2")
    assert chosen_in_words("a2n-x2-photo").endswith("for photographs that were saved as JPEG.")
    text = message(load_model, "srcnn-x3", scale=4)
    assert text == "srcnn-x3 is trained to enlarge by 3, not by 4. Here vdsr can."


def test_without_models_the_message_tells_what_to_do(empty):
    text = "This repository has no trained models yet: `make demo` trains one in minutes, out/demo."
    assert message(choose, None).startswith(f"Name a model by --model. {text}")
    assert text in message(load_model, "a2n-x2")
    assert text in refusal("upscale.py", "photo.jpg")
    assert text in refusal("evaluate.py")
    assert text in refusal("export.py")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_differs_from_its_checksum_is_refused(name, three):
    file = three / "vdsr" / name
    content = bytearray(file.read_bytes())
    content[-2:] = content[-2:][::-1] if name.endswith("s") else b" }"
    file.write_bytes(content)
    text = message(load_model, "vdsr")
    assert f"vdsr is damaged, or was changed: {name} is not what was written" in text
    (three / "vdsr" / CHECKSUMS).unlink()
    assert "has no SHA256SUMS" in message(load_model, "vdsr")
    assert load_model(three / "vdsr").scale == 2  # by its path it is like any other folder


@pytest.mark.parametrize("name", ["a2n", "a2n_x2", "A2N-x2x", "srcnn", "a2n-x4"])
def test_names_of_no_model(name, three):
    assert message(load_model, name) == f"There is no model, folder or file {name}. {NAMES}"
    assert message(load_matching, A2N(2), name).endswith(NAMES)


@pytest.mark.parametrize("name", ["out/a2n", "out/demo", "runs/a2n", "./out/a2n", "/nowhere/a2n"])
def test_a_path_that_is_not_there_ends_in_no_sentence_on_the_hub(
    name, three, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    text = message(load_model, name)
    assert text.startswith("There is no folder ")
    assert text.endswith(NAMES)
    assert "the Hub" not in text


def test_what_lies_beside_a_path_that_is_not_there(three, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "srcnn/checkpoint-20", "srcnn/checkpoint-40"):
        SRCNN(2).save_pretrained(f"out/{name}")
    for name, beside in {
        "out/a2n": "In out there are: demo. ",
        "out/srcnn/checkpoint-10": "In out/srcnn there are: checkpoint-20, checkpoint-40. ",
        "a2n": "",
    }.items():
        assert message(load_model, name).endswith(f"{name}. {beside}{NAMES}")


def test_files_are_no_models(three, tmp_path):
    weights = tmp_path / "published.safetensors"
    save_file({"a": torch.zeros(1)}, weights)
    text = message(load_model, weights)
    assert f"python convert_published.py {weights} --architecture" in text
    for name in ("weights.pth", "weights.pt", "photo.png"):
        (tmp_path / name).touch()
        text = message(load_model, tmp_path / name)
        assert "`python convert_published.py --help` says how" in text
    text = message(load_model, three / "vdsr" / "model.safetensors")
    assert text.endswith(f"is a file. Give its folder, {three / 'vdsr'}.")
    assert message(load_model, tmp_path).endswith(NAMES)  # a folder of other things


def test_upscale_without_a_model(three, tmp_path):
    Image.new("RGB", (20, 12), "gray").save(tmp_path / "photo.png")
    options = (tmp_path / "photo.png", "--output", tmp_path / "large")
    assert "Model: a2n-x2, of this repository." in run_here("upscale.py", *options).stdout
    assert "Model: vdsr, of this repo" in run_here("upscale.py", *options, "--scale", 4).stdout
    assert Image.open(tmp_path / "large" / "photo_x4.png").size == (80, 48)
    assert "Model: vdsr, of this repo" in run_here("upscale.py", *options, "--scale", 8).stdout
    assert Image.open(tmp_path / "large" / "photo_x8.png").size == (160, 96)
    assert "Model: a2n-x2, of" in run_here("upscale.py", *options, "--size", "30x").stdout
    assert "Model: vdsr, of this repo" in run_here("upscale.py", *options, "--size", "70x").stdout


def test_evaluate_without_a_model_scores_all(three, tiny_benchmark_dir, tmp_path):
    tiny = ("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny")
    figures = tmp_path / "figures.json"
    table = run_here("evaluate.py", *tiny, "--output", figures).stdout
    reports = json.loads(figures.read_text())
    assert [(report["model"], report["scale"]) for report in reports] == choose_all(None)
    for report in reports:
        psnr = report["benchmarks"]["Tiny"]["psnr_y"]
        line = next(
            x for x in table.splitlines() if x.startswith(f"{report['model']} x{report['scale']} ")
        )
        assert f" {psnr:.2f} " in line
    table = run_here("evaluate.py", "--model", "all", "--scale", 3, *tiny).stdout
    assert "vdsr x3" in table
    assert "x2 " not in table.partition("Protocol")[2]
    text = refusal("evaluate.py", *tiny, "--save_images", tmp_path / "sr", "--revision", "v1")
    assert "--save_images needs one --model, not all that are in pretrained/" in text
    assert "--revision needs one --model" in text


def test_the_card_of_a_name(three, tiny_benchmark_dir):
    tiny = ("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny")
    run_here("evaluate.py", "--model", "srcnn-x3", *tiny, "--add_to_card")
    assert "| Tiny x3 |" in (three / "srcnn-x3" / "README.md").read_text()
    assert load_model("srcnn-x3").scale == 3  # its card has no part in the checksums that count


def test_a_checkpoint_is_a_model(train, tmp_path):
    run = tmp_path / "run"
    options = ("--checkpointing_steps", 5, "--checkpoints_total_limit", 9, "--learning_rate", 1e-2)
    train(SCRIPT, run, *options, "--ema_decay", 0.5, steps=10)
    average = torch.load(run / "checkpoint-5" / "custom_checkpoint_1.pkl", weights_only=True)
    raw = load_file(run / "checkpoint-5" / "model.safetensors")
    name = "layers.0.weight"
    assert not torch.equal(average[f"module.{name}"], raw[name])
    model = load_model(run / "checkpoint-5")
    assert torch.equal(model.state_dict()[name], average[f"module.{name}"])
    final = load_model(run).state_dict()
    last = load_model(run / "checkpoint-10").state_dict()
    if metrics(run)[-1]["step"] == 10:  # one validation: the last step's weights are the model
        assert all(torch.equal(last[key], final[key]) for key in final)
    (run / "checkpoint-5" / "custom_checkpoint_1.pkl").write_bytes(b"other")
    assert "custom_checkpoint_1.pkl is not what was written" in message(
        load_model, run / "checkpoint-5"
    )
    text = message(push_model, run / "checkpoint-10", "user/name")
    assert text.endswith("is a checkpoint, which has no card. Give its run's folder.")


def test_a_checkpoint_of_an_older_version(train, tmp_path):
    run = tmp_path / "run"
    train(SCRIPT, run, steps=5)
    checkpoint = run / "checkpoint-5"
    (checkpoint / "config.json").unlink()
    sums = (checkpoint / CHECKSUMS).read_text().splitlines(keepends=True)
    (checkpoint / CHECKSUMS).write_text("".join(x for x in sums if "config" not in x))
    assert load_model(checkpoint).scale == 3  # by the config.json of its run
    (run / "config.json").rename(tmp_path / "config.json")
    assert "has no config.json. " in message(load_model, checkpoint)
    # A run that was killed before its first validation has checkpoints alone.
    (run / "model.safetensors").unlink()
    text = message(load_model, run)
    assert text.endswith(f"saved no model yet. Its latest checkpoint is one: {checkpoint}")


def test_srgan_loads_the_older_form_of_the_tutorials_generator(tmp_path):
    new = SRGAN(2, 1, "tutorial", num_features=8)
    assert [type(layer).__name__ for layer in new.trunk_end] == ["Conv2d", "BatchNorm2d"]
    old = SRGAN(2, 1, "tutorial", num_features=8)
    old.trunk_end[1] = torch.nn.PReLU(init=0.125)
    for name, model in (("new", new), ("old", old)):
        model.eval().save_pretrained(tmp_path / name)
        assert (tmp_path / name / "config.json").read_text().count("tutorial") == 1
        loaded = load_model(tmp_path / name)
        lr = torch.rand(1, 3, 6, 5)
        with torch.no_grad():
            assert torch.equal(loaded(lr), model(lr))
            assert torch.equal(SRGAN.from_pretrained(tmp_path / name)(lr), model(lr))
    begun = SRGAN(2, 1, "tutorial", num_features=8)
    assert load_matching(begun, tmp_path / "old").complete
    assert begun.trunk_end[1].weight.item() == 0.125
    paper = SRGAN(2, 1, num_features=8)
    assert not load_matching(paper, tmp_path / "old").complete


def test_a_checkpoint_of_the_older_form_is_resumed(train, tmp_path):
    old = SRGAN(2, 1, "tutorial")
    old.trunk_end[1] = torch.nn.PReLU(init=0.125)
    old.save_pretrained(tmp_path / "old")
    options = ("--scale", 2, "--variant", "tutorial", "--checkpointing_steps", 2)
    train(SRGAN_SCRIPT, tmp_path / "run", *options, "--init_from", tmp_path / "old", steps=4)
    shutil.copytree(tmp_path / "run" / "checkpoint-2", tmp_path / "again" / "checkpoint-2")
    train(SRGAN_SCRIPT, tmp_path / "again", *options, *LATEST, steps=4)
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("run", "again"))
    assert one["trunk_end.1.weight"].shape == (1,)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_second_stop_saves_the_later_model(train, tmp_path, monkeypatch):
    steps = iter([2, 5])

    class Stops(StopRequest):
        """As if somebody asked for it."""

        stop_at = 0

        def after_step(self):
            self.steps = getattr(self, "steps", 0) + 1
            return signal.SIGTERM if self.steps == self.stop_at else None

    monkeypatch.setattr(common.training.run, "StopRequest", Stops)
    run = tmp_path / "run"
    for options in ((), LATEST):
        Stops.stop_at = next(steps)
        train(SCRIPT, run, *options, runner=partial(run_here, check=False))
    assert "Stopped at step 7, before the first validation." in (run / "README.md").read_text()
    model, last = load_model(run), load_model(run / "checkpoint-7")
    assert all(torch.equal(x, last.state_dict()[name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize(("every", "expected"), [(10, [3, 10, 12]), (2, [2, 4]), (3, [3, 4])])
def test_the_first_validation_comes_early(every, expected, train, tmp_path, monkeypatch):
    monkeypatch.setattr(common.training.validation, "FIRST_VALIDATION", 3)
    train(SCRIPT, tmp_path / "run", "--validation_steps", every, steps=expected[-1])
    assert [row["step"] for row in metrics(tmp_path / "run") if "psnr_y" in row] == expected
