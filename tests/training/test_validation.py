"""The weights that count: a float32 copy, their average, the best of them."""

import io
from types import MethodType, SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import common.training.validation
from common.data.degradation import Degradation, DegradationError
from common.errors import UserError
from common.network import SuperResolutionModel
from common.options import Arguments
from common.training.log import RunningMeans
from common.training.run_card import EarlierRecipe
from common.training.state import RunState
from common.training.trackers import Trackers
from common.training.validation import Validator, float32_copy


class Tiny(SuperResolutionModel):
    """A convolution, and a mean of a data set that no state dict has."""

    mean: Tensor

    def __init__(self, scale: int, num_features: int = 3) -> None:
        super().__init__([scale])
        self.layer = nn.Conv2d(3, num_features, 3, padding=1)
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5), persistent=False)

    def forward(self, lr: Tensor) -> Tensor:
        larger = nn.functional.interpolate(lr, scale_factor=self.scale)
        return larger + self.layer(larger - self.mean)


def test_the_copy_is_made_anew_without_autocast():
    network = Tiny(2).to(memory_format=torch.channels_last)
    wrapped = torch.autocast("cpu", torch.bfloat16)(network.forward.__func__)
    network.forward = MethodType(wrapped, network)  # as Accelerate does
    before = torch.get_rng_state()
    copy = float32_copy(network)
    assert torch.equal(torch.get_rng_state(), before)
    lr = torch.rand(1, 3, 8, 8)
    exact = copy(lr)
    assert exact.dtype == torch.float32
    assert not torch.equal(exact, network(lr).float())
    assert copy.layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    network.layer.weight.data.zero_()
    assert torch.equal(copy(lr), exact)


class Pictures(SimpleNamespace):
    def checksum(self) -> str:
        return self.names[0]


@pytest.fixture
def benchmarks(monkeypatch):
    """Two scales of two pictures, whose scores are what `scores` says; and nothing is computed."""
    found = SimpleNamespace(scores=[])

    def evaluate(model, benchmark, device, metrics, on_image=None):
        is_ours = isinstance(getattr(model, "__self__", None), Tiny)
        psnr = found.scores.pop(0) if is_ours else 20.0
        scores = {"psnr_y": psnr, "ssim_y": 0.5, "seconds": 1.0}
        scores |= {metric.__name__: psnr**2 for metric in metrics[2:]}
        return dict.fromkeys(benchmark.pictures.names, scores)

    monkeypatch.setattr(common.training.validation, "evaluate", evaluate)

    class Benchmark(SimpleNamespace):
        degradation, lr = None, "made from HR"

        def __len__(self) -> int:
            return 2

    found.all = [Benchmark(scale=scale, pictures=Pictures(names=["a", "b"])) for scale in (2, 3)]
    return found


@pytest.fixture
def make(tmp_path, benchmarks, accelerator, processes):
    def make(network, ema_decay=0.0, scales=2, **own) -> Validator:
        args = Arguments(
            degradation="none",
            init_from=None,
            license=None,
            repository_url="https://example.org/code",
            ema_decay=ema_decay,
            output_dir=tmp_path / "run",
            dataset_name=None,
            train_data_dir="/home/me/T91",
            max_train_steps=10**9,  # not measured yet
        )
        args.command = "python train_tiny.py --train_data_dir /home/me/T91"
        trackers = Trackers(accelerator, processes)
        return Validator(args, network, benchmarks.all[:scales], processes, trackers, "T91", **own)

    return make


def test_scores_are_known_again_by_a_degradation_that_lies_elsewhere(make, benchmarks):
    def identity(name):
        benchmarks.all[0].degradation = Degradation(name)
        return make(Tiny(2)).identity

    assert identity("photo") == [[2, 3], "a", "photo"]
    assert identity("/home/me/own.py:f@01234567") == identity("own.py:f@01234567")
    assert identity("own.py:f@76543210") != identity("own.py:f@01234567")


def test_a_degradation_that_fails_in_the_rehearsal_is_named(make, benchmarks, monkeypatch):
    def fail(benchmark, index):
        raise DegradationError("own.py:f@01234567 failed: KeyError: 'x'")

    benchmarks.all[0].pictures.sizes = np.array([(8, 8), (9, 9)])
    monkeypatch.setattr(type(benchmarks.all[0]), "__getitem__", fail, raising=False)
    with pytest.raises(UserError) as error:
        make(Tiny(2)).rehearse()
    assert f"{error.value}" == "--degradation: own.py:f@01234567 failed: KeyError: 'x'"


def test_a_degradation_that_fails_in_a_validation_is_named(make, monkeypatch):
    def fail(*_, **__):
        raise DegradationError("own.py:f@01234567 failed: KeyError: 'x'")

    monkeypatch.setattr(common.training.validation, "evaluate", fail)
    with pytest.raises(UserError, match=r"^--degradation: own\.py:f@01234567 failed: KeyError"):
        make(Tiny(2)).validate(1)


def test_the_best_weights_are_kept_until_the_latest_are(make, benchmarks, tmp_path):
    network = Tiny(2)
    validator = make(network, scales=1)
    saved = []
    for step, psnr in ((1, 30.0), (2, 31.0), (3, 29.0), (4, 28.0)):
        network.layer.bias.data.fill_(step)
        benchmarks.scores = [psnr]
        if step == 4:
            validator.keeps_best = False
        assert validator.validate(step) == {"psnr_y": psnr, "ssim_y": 0.5}
        saved.append(load_file(tmp_path / "run" / "model.safetensors")["layer.bias"][0].item())
    assert saved == [1, 2, 2, 4]
    assert validator.result() == (
        "Validation, at step 4, on 2 pictures: PSNR-Y 28.00 dB, SSIM-Y 0.5000 "
        "(bicubic: 20.00 dB, 0.5000)."
    )
    card = (tmp_path / "run" / "README.md").read_text()
    assert "    python train_tiny.py --train_data_dir T91\n" in card
    assert "/home" not in card


def mae(sr, hr, crop_border):
    return (sr - hr).abs().mean().item()


def test_an_own_metric_is_logged_and_chooses_the_best(make, benchmarks, tmp_path):
    network = Tiny(2)
    validator = make(network, scales=1, metrics=[mae], rank=lambda scores: -scores["mae"])
    assert validator.identity == [[2], "a", "mae"]  # others are no scores to go on from
    saved = []
    for step, psnr in ((1, 30.0), (2, 25.0), (3, 31.0)):  # the stand-in's metric is the square
        network.layer.bias.data.fill_(step)
        benchmarks.scores = [psnr]
        assert validator.validate(step) == {"psnr_y": psnr, "ssim_y": 0.5, "mae": psnr**2}
        saved.append(load_file(tmp_path / "run" / "model.safetensors")["layer.bias"][0].item())
    assert saved == [1, 2, 2]
    assert validator.result() == (
        "Best validation, at step 2, on 2 pictures: PSNR-Y 25.00 dB, SSIM-Y 0.5000, MAE 625.0000 "
        "(bicubic: 20.00 dB, 0.5000, 400.0000)."
    )
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert ("mae", 625.0) in [(r.metric_name, r.metric_value) for r in card.data.eval_results]


def test_a_rank_that_is_no_number_does_not_keep_the_first_weights(make, benchmarks):
    ranks = {30.0: float("nan"), 31.0: 5.0, 32.0: float("nan")}
    validator = make(Tiny(2), scales=1, rank=lambda scores: ranks[scores["psnr_y"]])
    best = []
    for step, psnr in enumerate(ranks):
        benchmarks.scores = [psnr]
        validator.validate(step)
        best.append(validator.best["step"])
    assert best == [0, 1, 1]


@pytest.fixture
def picture(benchmarks):
    """Lets the benchmark of x2 give its larger picture, 24x24, to be computed."""
    pixels = torch.zeros(3, 24, 24, dtype=torch.uint8)
    benchmarks.all[0].pictures.sizes = np.array([(8, 8), (24, 24)])
    type(benchmarks.all[0]).__getitem__ = lambda benchmark, index: (
        "b",
        pixels[:, ::2, ::2],
        pixels,
    )


def test_a_rehearsal_computes_as_a_validation(make, picture, look, monkeypatch):
    monkeypatch.setattr(Tiny, "forward", lambda network, lr: look() or lr.repeat(1, 1, 2, 2))
    make(Tiny(2), scales=1, metrics=[look]).rehearse()
    assert look.seen == [("highest", False)] * 2  # a metric may be a network


def test_a_rank_by_a_metric_that_is_not_there_fails_in_the_rehearsal(make, picture):
    validator = make(Tiny(2), scales=1, rank=lambda scores: scores["lpips"])
    with pytest.raises(UserError, match=r"Validation fails on b, 24x24: KeyError: 'lpips'"):
        validator.rehearse()


def test_the_card_tells_license_terms_code_and_earlier_recipes(make, benchmarks, tmp_path):
    validator = make(Tiny(2), scales=1)
    change = "--degradation was none and is /home/me and you/own.py:f@01234567"
    command = "python train_tiny.py --train_data_dir /home/me/T91"
    validator.card.recipes = [EarlierRecipe(6000, command, [change, "--batch_size was 4 and is 8"])]
    benchmarks.scores = [30.0]
    validator.validate(7000)
    card = (tmp_path / "run" / "README.md").read_text()
    for text in (
        "![A crop of a photograph: input, bicubic, Tiny, original](example.png)",
        "In a clone of [the repository](https://example.org/code) that has `train_",
        "Until step 6,000 the recipe was another one. Then --degradation was none and is own.py:f@",
        "; --batch_size was 4 and is 8.\n\n    python train_tiny.py --train_data_dir T91\n",
        "## License\n\nNo license is claimed for the weights. The training pictures may have terms",
        "    python upscale.py photo.jpg --model path/of/this/folder\n",
    ):
        assert text in card
    assert "/home" not in card
    assert "max_train_steps" not in card
    with Image.open(tmp_path / "run" / "example.png") as image:
        assert (image.format, image.height < image.width) == ("PNG", True)


def test_means_over_several_scales(make, benchmarks):
    benchmarks.scores = [30.0, 26.0]
    validator = make(Tiny(2))
    values = validator.validate(7)
    assert values["psnr_y"] == 28.0
    assert (values["psnr_y_x2"], values["psnr_y_x3"]) == (30.0, 26.0)
    assert "step 7, on 2 pictures: x2: PSNR-Y 30.00 dB, SSIM-Y 0.5000 (bic" in validator.result()
    assert "; x3: PSNR-Y 26.00 dB" in validator.result()


def test_the_average_is_that_of_the_weights(make, benchmarks, tmp_path):
    network = Tiny(2)
    validator = make(network, ema_decay=0.75, scales=1)
    for value in (8.0, 4.0, 0.0):
        network.layer.bias.data.fill_(value)
        validator.update_average()
    benchmarks.scores = [30.0]
    validator.validate(3)
    saved = load_file(tmp_path / "run" / "model.safetensors")["layer.bias"]
    assert torch.equal(saved, torch.full((3,), (8 * 0.75 + 4 * 0.25) * 0.75))


def test_a_model_that_cannot_be_written_is_not_the_best(make, benchmarks, tmp_path, capsys):
    validator = make(Tiny(2), scales=1)
    (tmp_path / "run").write_text("a file where the folder should be")
    benchmarks.scores = [30.0]
    validator.validate(5)
    assert validator.best == {}
    assert list(validator.unsaved) == [f"the model in {tmp_path / 'run'}"]
    assert "Warning: The model of step 5 could not be saved" in capsys.readouterr().out
    (tmp_path / "run").unlink()
    benchmarks.scores = [25.0]
    validator.validate(6)
    assert validator.best["step"] == 6
    assert validator.unsaved == {}


def test_state_of_a_checkpoint(make, benchmarks, processes, tmp_path):
    def new() -> RunState:
        means, validator = RunningMeans(torch.device("cpu")), make(Tiny(2), scales=1)
        pictures = SimpleNamespace(patches=SimpleNamespace(positions={}))
        state = RunState(means, validator, pictures, processes)
        return state, means, validator

    state, means, validator = new()
    state.step = 12
    means.add({"loss": torch.tensor(2.0)})
    benchmarks.scores = [30.0]
    validator.validate(10)
    state.collect()
    saved = state.state_dict()
    keys = ["step", "scores", "best", "bicubic", "sums", "count", "validation", "positions"]
    assert list(saved) == [*keys, "validation_is_due"]  # all but the last as in earlier checkpoints
    content = io.BytesIO()
    torch.save(saved, content)
    content.seek(0)
    saved = torch.load(content, weights_only=True)

    other, means, validator = new()
    other.load_state_dict(saved)
    assert other.step == 12
    assert (means.sums, means.count) == ({"loss": torch.tensor(2.0)}, 1)
    assert validator.best == {"psnr_y": 30.0, "ssim_y": 0.5, "step": 10}
    # With other validation pictures, the best weights are chosen anew.
    benchmarks.all[0].pictures = Pictures(names=["c", "d"])
    other, _, validator = new()
    other.load_state_dict(saved)
    assert (validator.scores, validator.best, validator.bicubic) == ({}, {}, {})
    benchmarks.scores = [31.0]
    validator.save_copy("pretrained", 12)  # at the border of two phases
    card = (tmp_path / "run" / "pretrained" / "README.md").read_text()
    assert "Validation, at step 12, on 2 pictures: PSNR-Y 31.00 dB" in card
