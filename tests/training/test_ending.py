"""The end of a run: what it is worth, and what to do next."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from common.training.ending import ending


def end(psnr: float = 33.0, **options: object) -> list[str]:
    validator = SimpleNamespace(
        best={"psnr_y": psnr},
        bicubic={"psnr_y": 32.0},
        keeps_best=options.pop("keeps_best", True),
        result=lambda: "Best validation.",
    )
    args = {"output_dir": Path("out/my run"), "dataset_name": "user/name", "report_to": "none"}
    args |= {"lr_scheduler": "step"}
    return ending(SimpleNamespace(**args | options), validator).splitlines()


def test_what_is_worse_than_bicubic_is_told():
    assert not any("bicubic, which" in line for line in end())
    assert end(31.9)[1].startswith("That is worse than bicubic")
    assert end(31.9, keeps_best=False) == end()  # SRGAN's second phase, which is not for PSNR


def test_commands_for_what_comes_next():
    assert end(report_to="tensorboard") == [
        "Best validation.",
        "The model is in out/my run. What next:",
        "    python evaluate.py --model 'out/my run'                        "
        "# scores on Set5 and Set14, of the Hub",
        "    python upscale.py photo.jpg --model 'out/my run' --comparison  "
        "# a picture, beside bicubic",
        "    tensorboard --logdir 'out/my run'                              "
        "# curves, and the validation pictures",
    ]


@pytest.mark.parametrize("dataset", ["sample", None])
def test_scores_without_the_hub(dataset, monkeypatch):
    assert "evaluate.py --model 'out/my run' --benchmarks sample" in end(dataset_name=dataset)[2]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "--benchmarks sample" in end()[2]
