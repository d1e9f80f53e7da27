"""Weights that are no weights."""

import pytest
from safetensors.torch import load_file, save_file

import convert_published
import evaluate
import export
import upscale
from common.errors import UserError
from common.hub import load_matching, push_model
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
