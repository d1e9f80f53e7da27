"""What the compiler is told, how networks are wrapped, when kernels are searched."""

import warnings

import torch
import torch.distributed as dist
from torch import nn

import train_srgan
from common.options import Arguments
from common.training.compiling import MODES, compiler_options
from common.training.together import make_accelerator
from running import SCRIPT, SRGAN, refusal
from train_vdsr import parse_args


def test_each_mode_is_what_pytorch_makes_of_it():
    args = parse_args(["--compile"])
    assert (args.compile, parse_args([]).compile) == ("default", None)
    for mode in MODES:
        args = parse_args(["--compile", mode])
        assert compiler_options(args) == torch._inductor.list_mode_options(mode)
        own = {"layout_optimization": False}  # which may not stand beside a mode
        assert compiler_options(args, own) == torch._inductor.list_mode_options(mode) | own
        torch.compile(nn.Identity(), options=compiler_options(args, own))


def test_no_graph_where_its_memory_is_needed_twice():
    args = parse_args("--compile max-autotune --gradient_accumulation_steps 2".split())
    assert compiler_options(args)["triton.cudagraphs"] is False
    assert compiler_options(args)["max_autotune"] is True
    for parts in (2, "auto"):
        options = ("--compile", "reduce-overhead", "--gradient_accumulation_steps", parts)
        assert "whose memory --gradient_acc" in refusal(SCRIPT, *map(str, options))


def test_the_second_phase_of_srgan_has_no_graphs():
    options = ["--compile", "reduce-overhead"]
    assert "which overwrite what a network gave" in refusal(SRGAN, *options)
    assert train_srgan.parse_args([*options, "--max_train_steps", "0"]).compile == "reduce-overhead"
    for words, graphs in (([], False), (["--max_train_steps", "0"], True)):
        args = train_srgan.parse_args(["--compile", "max-autotune", *words])
        assert compiler_options(args)["triton.cudagraphs"] is graphs


def test_networks_are_wrapped_without_warnings_and_copies(monkeypatch):
    args = Arguments(
        mixed_precision="no",
        report_to="none",
        output_dir=None,
        compile=None,
        gradient_accumulation_steps=1,
    )
    wrapping = make_accelerator(args).ddp_handler
    settings = wrapping.to_kwargs()
    assert settings["gradient_as_bucket_view"] is True
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = nn.parallel.DistributedDataParallel(nn.BatchNorm1d(2), **settings)
        model(torch.rand(3, 2)).sum().backward()
        assert not model.broadcast_buffers
    finally:
        dist.destroy_process_group()

    class Old:
        def __init__(self, module, broadcast_buffers=True, gradient_as_bucket_view=False):
            pass

    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", Old)
    assert wrapping.to_kwargs() == {"broadcast_buffers": False, "gradient_as_bucket_view": True}
