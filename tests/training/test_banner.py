from argparse import Namespace
from types import SimpleNamespace

import torch

from common.training.banner import banner
from train_srcnn import SRCNN


def test_banner(accelerator, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    args = Namespace(
        recipe="modern",
        optimizer="adamw",
        learning_rate=5e-4,
        lr_scheduler="wsd",
        lr_warmup_steps=2000,
        max_train_steps=20_000,
        max_train_minutes=1.5,
        patch_size=24,
        batch_size=8,
        gradient_accumulation_steps=2,
        compile="reduce-overhead",
        output_dir="out/srcnn",
        degradation="none",
        permute_channels=True,
    )
    patches = SimpleNamespace(in_banner=lambda: "7 to train on (0.1 megapixels)")
    pictures = SimpleNamespace(patches=patches, validation=[Benchmark(2), Benchmark(3)])
    pictures.lr = "read from DIV2K/lr/a.png and so on"
    accelerator.device, accelerator.num_processes = torch.device("cpu"), 2
    accelerator.mixed_precision = "bf16"
    text = banner(args, SRCNN(2), pictures, range(1000, 20_000), accelerator)
    assert text.splitlines() == [
        "   Network: SRCNN x2 x3, 8,129 parameters",
        "    Recipe: modern, adamw, rate 0.0005, schedule wsd",
        "  Pictures: 7 to train on (0.1 megapixels), 1 to validate on",
        "        LR: read from DIV2K/lr/a.png and so on",
        "   Patches: LR 12x12 or 8x8, HR 24x24, their channels in any order",
        "     Batch: 8 patches in 2 parts over 2 processes",
        "     Steps: 1,000 to 20,000, or what 1.5 minutes allow",
        "    Device: CPU, 1 thread, bf16, compiled by reduce-overhead",
        "    Output: out/srcnn",
    ]
    text = banner(args, SRCNN(2), pictures, range(10**9), accelerator)  # no number was given
    assert "     Steps: 0 to what 1.5 minutes allow\n" in text
    args.max_train_minutes, args.max_train_steps = None, 900
    text = banner(args, SRCNN(2), pictures, range(900), accelerator)
    assert "  Steps: 0 to 900, all in the warm-up of 2,000, in which the rate rises\n" in text
    args.max_train_steps = 0  # after a phase without a schedule
    text = banner(args, SRCNN(2), pictures, range(900), accelerator)
    assert " Recipe: modern, adamw, rate 0.0005\n" in text


class Benchmark(SimpleNamespace):
    def __init__(self, scale: int) -> None:
        super().__init__(scale=scale, lr="read from DIV2K/lr/a.png and so on")

    def __len__(self) -> int:
        return 1
