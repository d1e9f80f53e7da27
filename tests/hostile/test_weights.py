"""Weights that are no weights."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import convert_published
import evaluate
import export
import upscale
from common.errors import UserError
from common.hub import load_matching, load_model, push_model
from common.training.state import _refuse_code
from train_a2n import A2N
from train_srcnn import SRCNN


@pytest.fixture(params=[float("nan"), float("inf")])
def diverged(request, tmp_path):
    """The folder of a model of which one weight is no finite number."""
    SRCNN(2).save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["layers.2.weight"][3, 4] = request.param
    save_file(tensors, file, {"format": "pt"})
    return tmp_path / "model"


def test_weights_that_are_not_finite_are_refused_by_all_that_use_them(diverged, tmp_path):
    model = ["--model", diverged]
    output = ["--output_dir", tmp_path / "converted"]
    for use in (
        lambda: evaluate.main([*model, "--benchmarks", "sample"]),
        lambda: upscale.main([__file__, *model, "--output", tmp_path / "upscaled"]),
        lambda: export.main([*model, "--output", tmp_path / "x.onnx"]),
        lambda: push_model(diverged, "user/name"),
        lambda: load_matching(SRCNN(2), diverged),
        lambda: convert_published.main(
            [diverged / "model.safetensors", "--architecture", "srcnn", "--scale", "2", *output]
        ),
    ):
        with pytest.raises(UserError, match=r"no finite numbers, in 1 of 6 tensors \(layers.2.w"):
            use()
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


# ------------------------------------------------------------------------------------- damaged


@pytest.fixture
def model(tmp_path):
    SRCNN(2).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def refused(folder) -> str:
    with pytest.raises(UserError) as error:
        load_model(folder)
    assert len(f"{error.value}".replace(f"{folder}", "")) <= 400
    return f"{error.value}"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "no configuration of a network: Expecting value"),
        ("[1]", 'it does not say which network it is of ("architecture")'),
        ('{"architecture": ["srcnn"]}', 'it does not say which network it is of ("architecture")'),
        ("[" * 50_000, "no configuration of a network: RecursionError"),
        (" " * 200_000, "it has more than 100,000 bytes"),
        ('{"architecture": "os"}', "Unknown architecture 'os'. This repository has: a2n"),
        ('{"architecture": "srcnn", "scale": "2"}', '"scale" is "2", and must be a whole number.'),
        ('{"architecture": "srcnn", "scale": true}', '"scale" is true, and must be a whole numb'),
        ('{"architecture": "srcnn", "scale": null}', '"scale" is null, and must be a whole numb'),
        ('{"architecture": "srcnn"}', 'it has no "scale", which SRCNN needs.'),
        ('{"architecture": "srcnn", "scale": 2, "mean": {}}', '"mean" is {}, and must be a number'),
        (
            '{"architecture": "srcnn", "scale": 2, "padding_mode": "x"}',
            '"padding_mode" is "x", and must be "replicate" or "zeros".',
        ),
        (
            '{"architecture": "srcnn", "scale": 2, "kernel_sizes": "9-x"}',
            "kernel_sizes must be three odd numbers as 9-1-5, not 9-x",
        ),
        (
            '{"architecture": "vdsr", "scales": [2, "x"]}',
            '"scales" is [2, "x"], and must be a list of whole numbers.',
        ),
        (
            '{"architecture": "srcnn", "scale": 2, "kernel_sizes": "99999-1-5"}',
            "not to be trusted: The network would have more than 250,000,000 parameters",
        ),
        ('{"architecture": "a2n", "scale": 2, "num_blocks": 0}', "does not fit the network a2n"),
        (
            '{"architecture": "a2n", "scale": 2, "num_blocks": 1000000000}',
            "not to be trusted: The network would have more than 20,000 modules",
        ),
        (
            '{"architecture": "vdsr", "scales": [2], "num_features": 100000}',
            "not to be trusted: The network would have more than 250,000,000 parameters",
        ),
    ],
    ids=range(18),
)
def test_configurations(model, config, message):
    (model / "config.json").write_text(config)
    assert message in refused(model)


def test_weights_that_are_something_else(model):
    file = model / "model.safetensors"
    whole = file.read_bytes()
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    assert "is a pointer of git-lfs in place of the weights. Get them by `git lfs" in refused(model)
    for content in (b"", whole[:100], whole[:-1], b"\0" * 100):
        file.write_bytes(content)
        assert "cannot be read as .safetensors: " in refused(model)
    save_file({name: tensor.half() for name, tensor in tensors.items()}, file)
    assert "holds torch.float16 in layers.0.weight, where the network has torch.float32" in refused(
        model
    )
    save_file(tensors | {"layers.0.bias": torch.tensor(1.0)}, file)
    message = "1 have another shape (layers.0.bias is a single number and must be 64). Take model."
    assert f"does not fit the network srcnn: {message}" in refused(model)


def test_weights_of_another_network(model):
    A2N(2, num_blocks=1).save_pretrained(model.parent / "a2n")
    tensors = load_file(model.parent / "a2n" / "model.safetensors")
    save_file(tensors, model / "model.safetensors")
    message = refused(model)
    assert (
        "does not fit the network srcnn: 6 of its 6 tensors are missing (layers.0.weight and 5 "
        f"more), {len(tensors)} of the file are of another network ("
    ) in message
    assert message.endswith("Take model.safetensors and config.json from the same model.")


def test_an_argument_of_a_later_version_is_named_and_left_out(model, capsys):
    whole = json.loads((model / "config.json").read_text())
    assert load_model(model).arguments.items() == (whole.items() - {("architecture", "srcnn")})
    assert capsys.readouterr().err == ""
    (model / "config.json").write_text(json.dumps(whole | {"foo": 1}))
    assert load_model(model).scale == 2
    assert capsys.readouterr().err == (
        f'Warning: {model / "config.json"} has "foo", which this version of SRCNN does not know. '
        "It is left out. If you wrote it, correct the name.\n"
    )


class Code:
    """Runs when it is unpickled."""

    ran = False

    def __reduce__(self):
        return setattr, (Code, "ran", True)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    torch.save({"step": 1}, tmp_path / "custom_checkpoint_0.pkl")
    _refuse_code(tmp_path)
    torch.save({"step": Code()}, tmp_path / "custom_checkpoint_1.pkl")
    with pytest.raises(OSError, match=r"custom_checkpoint_1.pkl holds more than tensors and plain"):
        _refuse_code(tmp_path)
    assert not Code.ran
