"""The recipe: the schedule of the learning rate, and what may not change when a run resumes."""

import importlib
import json
from types import SimpleNamespace

import pytest
import torch

import train_a2n
import train_srgan
import train_vdsr
from common.errors import UserError
from common.options import Arguments
from common.training.muon import orthogonal
from common.training.optimizer import clip_gradients, make_optimizer
from common.training.recipe import check_network, check_recipe
from common.training.schedule import learning_rate_factor
from running import SCRIPTS


def factors(steps: int, **settings) -> list[float]:
    defaults = {"lr_warmup_steps": 0, "lr_scheduler": "step", "lr_step_size": 2, "lr_gamma": 0.5}
    factor = learning_rate_factor(SimpleNamespace(**defaults | settings))
    return [factor(step) for step in range(steps)]


def test_learning_rate_by_steps():
    assert factors(5) == [1, 1, 0.5, 0.5, 0.25]
    assert factors(5, lr_warmup_steps=4) == [0.25, 0.5, 0.75, 1, 0.25]


def test_learning_rate_by_a_cosine():
    found = factors(8, lr_scheduler="cosine", lr_warmup_steps=2, max_train_steps=6)
    assert found == pytest.approx([0.5, 1, 1, 0.5 + 2**-1.5, 0.5, 0.5 - 2**-1.5, 0, 0])


def test_learning_rate_by_milestones_is_that_of_pytorch():
    milestones, gamma = [3, 4, 9], 0.3
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma)
    theirs = []
    for _ in range(12):
        theirs += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    ours = factors(12, lr_scheduler="multistep", lr_milestones=milestones, lr_gamma=gamma)
    assert ours == pytest.approx(theirs, rel=1e-12)
    assert ours[2:4] == [1, 0.3]


def test_learning_rate_that_stays_and_decays():
    wsd = {"lr_scheduler": "wsd", "lr_warmup_steps": 2, "lr_decay_steps": 4}
    found = factors(11, **wsd, max_train_steps=10)
    assert found == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    # Until the shorter run begins to decay, and for the step after, a longer one has the same.
    assert factors(11, **wsd, max_train_steps=20)[:7] == found[:7]


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of an older command, which did not know `--new`."""
    before = {"learning_rate": 1e-4, "scale": [2, 3], "num_workers": 2}
    (tmp_path / "args.json").write_text(json.dumps({"args": before}))
    return tmp_path


def command(**changes) -> Arguments:
    options = {"learning_rate": 1e-4, "scale": [2, 3], "num_workers": 4, "new": True}
    args = Arguments(**options | {"allow_recipe_change": False} | changes)
    args.fixed = frozenset(("learning_rate", "scale", "new"))
    return args


def test_the_same_recipe(checkpoint):
    assert check_recipe(command(), checkpoint) == []


def test_an_older_checkpoint_knew_no_degradation(checkpoint):
    args = command(degradation="jpeg")
    args.fixed |= {"degradation"}
    with pytest.raises(UserError, match="--degradation was none and is jpeg"):
        check_recipe(args, checkpoint)
    args.degradation = "none"
    assert check_recipe(args, checkpoint) == []


def test_a_degradation_may_lie_elsewhere(checkpoint):
    before = {"degradation": "/home/me/own.py:f@01234567"}
    (checkpoint / "args.json").write_text(json.dumps({"args": before}))
    for name in ("own.py:f@01234567", "../code/own.py:f@01234567"):
        args = command(degradation=name)
        args.fixed |= {"degradation"}
        assert check_recipe(args, checkpoint) == []
    for name in ("own.py:f@76543210", "own.py:g@01234567", "other.py:f@01234567", "jpeg"):
        args.degradation = name
        with pytest.raises(UserError, match=f"--degradation was .* and is {name}"):
            check_recipe(args, checkpoint)


def test_another_recipe_needs_permission(checkpoint):
    changes = {"learning_rate": 1e-5, "scale": [2]}
    with pytest.raises(UserError) as error:
        check_recipe(command(**changes), checkpoint)
    assert str(error.value).startswith(
        f"Cannot resume from {checkpoint} by another recipe: --learning_rate was 0.0001 and is "
        "1e-05, --scale was [2, 3] and is [2]. Give the same options, or start a new run with "
        "--init_from and another --output_dir. If network, optimizer and average are the same, "
        "--allow_recipe_change goes on with the new recipe."
    )
    assert check_recipe(command(**changes, allow_recipe_change=True), checkpoint) == [
        "--learning_rate was 0.0001 and is 1e-05",
        "--scale was [2, 3] and is [2]",
    ]


@pytest.mark.parametrize(
    ("step", "steps", "decay", "refusal"),
    [
        (16, 40, 4, ""),  # where the decay began
        (16, 40, 10, ""),
        (10, 14, 4, ""),  # it begins now
        (10, 13, 4, "--max_train_steps 13 and --lr_decay_steps 4 the rate would have begun"),
        (17, 40, 4, "its rate has been falling since step 16. To train longer, go on from the"),
        (20, 20, 4, ""),
    ],
)
def test_a_decay_can_be_put_off_until_it_begins(step, steps, decay, refusal, tmp_path):
    before = {"lr_scheduler": "wsd", "max_train_steps": 20, "lr_decay_steps": 4}
    record = {"args": before | {"learning_rate": 1e-4}, "step": step}
    checkpoint = tmp_path / "checkpoint-x"
    for folder in (checkpoint, tmp_path / "checkpoint-16"):
        folder.mkdir()
    (checkpoint / "args.json").write_text(json.dumps(record))
    args = command(lr_scheduler="wsd", max_train_steps=steps, lr_decay_steps=decay)
    if not refusal:
        assert check_recipe(args, checkpoint) == []
        return
    with pytest.raises(UserError) as error:
        check_recipe(args, checkpoint)
    assert refusal in str(error.value)
    if step > 16:
        assert f"--resume_from_checkpoint {tmp_path / 'checkpoint-16'} and another" in str(
            error.value
        )
    else:
        assert "give --max_train_steps 14. Give" in str(error.value)


def test_the_steps_of_a_first_phase_are_not_those_of_a_decay(tmp_path):
    before = {"lr_scheduler": "wsd", "max_train_steps": 20, "lr_decay_steps": 4}
    before |= {"pretrain_steps": 1000, "learning_rate": 1e-4}
    (tmp_path / "args.json").write_text(json.dumps({"args": before, "step": 1010}))
    args = command(**before | {"max_train_steps": 13})
    with pytest.raises(UserError, match=r"at step 1009, .* give --max_train_steps 14\. Give"):
        check_recipe(args, tmp_path)
    args.max_train_steps = 14
    assert check_recipe(args, tmp_path) == []


def test_a_longer_modern_run_says_who_laid_the_falls(tmp_path):
    words = ["--recipe", "modern", "--max_train_steps"]
    before = train_a2n.parse_args([*words, "1000"])
    record = {"args": vars(before), "step": 1000}
    (tmp_path / "args.json").write_text(json.dumps(record, default=str))
    with pytest.raises(UserError) as error:
        check_recipe(train_a2n.parse_args([*words, "2000"]), tmp_path)
    old = "--lr_milestones 500 800 900 950 980 --lr_warmup_steps 40 --ema_decay 0.98"
    assert (
        "--lr_warmup_steps was 40 and is 80, --ema_decay was 0.98 and is 0.99. --recipe modern "
        f"lays them by --max_train_steps. To train longer, add the old ones: {old}. "
        "Give the same options" in str(error.value)
    )
    args = train_a2n.parse_args([*words, "2000", *old.split()])
    assert check_recipe(args, tmp_path) == []


def longer_cosine(folder, step):
    """Options of 40 steps, for a run of 20 whose record of a step lies in a folder."""
    options = {"learning_rate": 1e-4, "lr_scheduler": "cosine", "lr_warmup_steps": 0}
    record = {"args": options | {"max_train_steps": 20, "scale": [2, 3]}, "step": step}
    (folder / "args.json").write_text(json.dumps(record))
    args = command(**options, max_train_steps=40)
    args.fixed |= {"max_train_steps"}
    return args


def test_a_finished_cosine_says_why_it_cannot_become_longer(tmp_path):
    args = longer_cosine(tmp_path, 20)
    with pytest.raises(UserError) as error:
        check_recipe(args, tmp_path)
    assert (
        "--max_train_steps was 20 and is 40. By --lr_scheduler cosine the rate falls to zero at "
        "--max_train_steps, so another number of steps is another schedule; here the rate would "
        "jump from 0 to 5e-05. Runs by --lr_scheduler wsd can become longer. Give the same options"
    ) in str(error.value)


def test_a_finished_cosine_does_not_jump_to_the_same_rate(tmp_path):
    args = longer_cosine(tmp_path, 0)
    with pytest.raises(UserError, match=r"is another schedule\. Runs by --lr_scheduler wsd can"):
        check_recipe(args, tmp_path)


def test_the_checkpoint_of_another_script_is_refused(tmp_path):
    (tmp_path / "args.json").write_text(json.dumps({"args": {}, "command": "python train_a2n.py"}))
    for script in ("train_a2n.py", "train_a2n.py --scale 2", "own.py"):
        args = command()
        args.command = f"python {script}"
        check_network(args, tmp_path)
    args.command, args.allow_recipe_change = "python train_vdsr.py --scale 2", True
    with pytest.raises(UserError, match=r"it is of A2N, by train_a2n\.py, and train_vdsr"):
        check_network(args, tmp_path)


def test_an_older_checkpoint_knew_one_optimizer(checkpoint):
    new = {"optimizer": "adam", "betas": [0.9, 0.999], "weight_decay": 0.0, "clip_grad_norm": None}
    args = command(**new)
    args.fixed |= new.keys()
    assert check_recipe(args, checkpoint) == []
    args.optimizer, args.betas, args.clip_grad_norm = "adamw", [0.9, 0.99], 1.0
    with pytest.raises(UserError, match="--optimizer was adam and is adamw, --betas was"):
        check_recipe(args, checkpoint)


# ---------------------------------------------------------------------------------- named recipes


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_modern_recipe_fits_every_length(script):
    parse_args = importlib.import_module(script.removesuffix(".py")).parse_args
    paper, modern = parse_args([]), parse_args(["--recipe", "modern", "--max_train_steps", "1000"])
    assert (paper.recipe, paper.optimizer, paper.lr_milestones) == ("paper", "adam", None)
    assert modern.recipe == "modern"
    assert (modern.optimizer, modern.betas, modern.weight_decay) == ("adamw", [0.9, 0.99], 0)
    assert modern.lr_milestones == [500, 800, 900, 950, 980]
    assert (modern.lr_warmup_steps, modern.ema_decay, modern.lr_gamma) == (40, 0.98, 0.5)
    for steps, decay in ((10, 0), (500, 0.96), (500_000, 0.999)):
        words = ["--recipe", "modern", "--max_train_steps", f"{steps}"]
        assert parse_args(words).ema_decay == decay
    assert modern.max_train_steps == 1000
    assert "recipe" not in modern.fixed
    assert {"optimizer", "betas", "lr_milestones", "clip_grad_norm"} <= modern.fixed


def test_any_option_overrides_a_recipe():
    words = "--recipe modern --learning_rate 1e-3 --lr_scheduler cosine --ema_decay 0".split()
    args = train_a2n.parse_args(words)
    assert (args.learning_rate, args.lr_scheduler, args.ema_decay) == (1e-3, "cosine", 0)
    assert (args.lr_milestones, args.optimizer) == (None, "adamw")
    args = train_vdsr.parse_args(["--recipe", "modern", "--optimizer", "sgd"])
    assert (args.optimizer, args.betas, args.clip_theta) == ("sgd", None, 2e-5)
    assert (args.learning_rate, args.weight_decay) == (0.1, 1e-4)  # those of sgd
    assert train_a2n.parse_args("--recipe modern --max_train_minutes 9".split()).ema_decay == 0.99
    args = train_a2n.parse_args(["--recipe", "cpu", "--scale", "3"])
    assert (args.batch_size, args.patch_size, args.max_train_steps) == (8, 96, 900)
    assert (args.optimizer, args.learning_rate) == ("muon", 5e-3)
    args = train_srgan.parse_args(["--recipe", "cpu"])
    assert (args.pretrain_steps, args.max_train_steps, args.batch_size) == (2000, 0, 8)
    assert train_a2n.parse_args([]).batch_size == 32  # a recipe leaves no traces


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--lr_scheduler multistep", "For --max_train_steps 1000, --lr_milestones 500 800 900 950"),
        (
            "--lr_scheduler cosine --lr_gamma 0.5",
            "--lr_gamma belongs to --lr_scheduler step or m",
        ),
        (
            "--lr_scheduler cosine --lr_step_size 9",
            "--lr_step_size belongs to --lr_scheduler step. Leave it out",
        ),
        ("--lr_milestones 10", "--lr_milestones belongs to --lr_scheduler multistep. Leave it out"),
        ("--lr_scheduler multistep --lr_milestones 9 7 7", "9 7 7 do not ascend. Give them as 7 9"),
        ("--lr_scheduler multistep --lr_milestones 9 2000", "2000 lies beyond --max_train_steps 1"),
        ("--lr_scheduler multistep --lr_milestones -5", "--lr_milestones -5 is not at least 1"),
        ("--lr_scheduler wsd", "A fifth of the run is usual: --lr_decay_steps 200."),
        ("--lr_decay_steps 5", "--lr_decay_steps belongs to --lr_scheduler wsd."),
        (
            "--lr_scheduler wsd --lr_decay_steps 999 --lr_warmup_steps 2",
            "are more than --max_train",
        ),
        (
            "--optimizer adamw --weight_decay 3000",
            "3000 times --learning_rate 0.0005 is not below 1",
        ),
        ("--weight_decay -1", "--weight_decay -1 is not at least 0"),
        ("--betas 0.9 1", "--betas 1 is not at least 0 and below 1"),
        ("--clip_grad_norm 0", "--clip_grad_norm 0 is not above 0"),
        ("--ms_ssim_weight 1 --patch_size 10", "--patch_size 10 is smaller than the window of --m"),
        ("--recipe best", "--recipe: invalid choice: 'best' (choose from"),
        ("--max_train_minutes 1 --lr_warmup_steps 9", "Leave out --lr_warmup_steps, or give 20 or"),
        (
            "--max_train_minutes 1 --lr_scheduler multistep --lr_milestones 5",
            "--max_train_minutes lays --lr_milestones itself, when the number of steps is known.",
        ),
    ],
)
def test_mistakes_of_the_recipe_are_told_in_words(options, message, capsys):
    with pytest.raises(SystemExit):
        train_a2n.parse_args([*"--max_train_steps 1000".split(), *options.split()])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--lr_scheduler cosine", "--lr_warmup_steps 5", "--lr_gamma 1"])
def test_a_phase_at_a_constant_rate_takes_no_schedule(option, capsys):
    words = ["--pretrain_steps", "9", "--max_train_steps", "0"]
    train_srgan.parse_args(words)
    with pytest.raises(SystemExit):
        train_srgan.parse_args([*words, *option.split()])
    message = (
        f"{option.split()[0]} is for the steps of --max_train_steps, which are 0, and the rate"
    )
    assert message in capsys.readouterr().err


def test_the_average_of_modern_is_of_the_last_phase():
    def decay(words):
        return train_srgan.parse_args(["--recipe", "modern", *words.split()]).ema_decay

    assert decay("--max_train_steps 0") == 0.999  # after a million steps
    assert decay("--pretrain_steps 500 --max_train_steps 0") == 0.96
    assert decay("--max_train_steps 100") == 0.8  # which forgets the million before
    args = train_srgan.parse_args("--recipe modern --max_train_steps 0".split())
    assert (args.lr_scheduler, args.lr_milestones, args.lr_warmup_steps) == ("step", None, 0)


def test_no_first_phase_follows_on_the_second(checkpoint):
    record = json.loads((checkpoint / "args.json").read_text()) | {"step": 15}
    record["args"] |= {"pretrain_steps": 10, "lr_scheduler": "step"}
    options = {"lr_scheduler": "step", "allow_recipe_change": True}
    (checkpoint / "args.json").write_text(json.dumps(record))
    with pytest.raises(UserError) as error:
        check_recipe(command(**options, pretrain_steps=16), checkpoint)
    assert "is past the first phase, of 10 steps, and --pretrain_steps 16" in str(error.value)
    assert "Give --pretrain_steps 10. To train the first phase longer, begin" in str(error.value)
    for step, new in ((10, 16), (15, 15)):
        (checkpoint / "args.json").write_text(json.dumps(record | {"step": step}))
        check_recipe(command(**options, pretrain_steps=new), checkpoint)


def test_betas_have_no_meaning_for_sgd(capsys):
    with pytest.raises(SystemExit):
        train_vdsr.parse_args("--optimizer sgd --betas 0.9 0.99".split())
    assert "--betas belongs to --optimizer adam or adamw or muon." in capsys.readouterr().err


def test_gradients_of_fp16_are_unscaled_once_for_both_limits():
    weights = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weights], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4)
    scaler.scale((weights * torch.tensor([3.0, 4.0])).sum()).backward()
    accelerator = SimpleNamespace(
        sync_gradients=True, unscale_gradients=lambda: scaler.unscale_(optimizer)
    )
    network = SimpleNamespace(parameters=lambda: [weights])
    clip_gradients(SimpleNamespace(clip_grad_norm=1.0), accelerator, network, 0.7)
    assert weights.grad.tolist() == pytest.approx([0.6, 0.7])


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_optimizer_is_that_of_pytorch(name):
    options = SimpleNamespace(
        optimizer=name, learning_rate=0.1, weight_decay=0.5, betas=[0.8, 0.9], clip_grad_norm=None
    )
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    made = {
        "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.5, betas=(0.8, 0.9)),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5, betas=(0.8, 0.9)),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.5, momentum=0.9),
    }[name]([theirs])
    for weights, optimizer in ((ours, make_optimizer(options, [ours])), (theirs, made)):
        for _ in range(3):
            weights.grad = weights.detach() ** 2
            optimizer.step()
    assert torch.allclose(ours, theirs, rtol=1e-6)


def muon_steps(
    weights: list[torch.Tensor], gradients: list[torch.Tensor], weight_decay: float = 0.5
) -> list[torch.Tensor]:
    """Weights after steps with these gradients of all of them together, at rate 0.1."""
    parameters = [torch.nn.Parameter(weight.clone()) for weight in weights]
    options = SimpleNamespace(
        optimizer="muon", learning_rate=0.1, weight_decay=weight_decay, betas=[0.8, 0.9]
    )
    optimizer = make_optimizer(options, parameters)
    sizes = [weight.numel() for weight in weights]
    for gradient in gradients:
        for parameter, part in zip(parameters, gradient.split(sizes), strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(part.view(parameter.shape))
        optimizer.step()
        assert all(parameter.grad is not None for parameter in parameters)
    return [parameter.detach() for parameter in parameters]


def test_muon_leaves_other_weights_to_adamw():
    torch.manual_seed(0)
    others = [torch.randn(64, 3, 3, 3), torch.randn(32, 32), torch.randn(16)]
    gradients = [torch.randn(64 * 27 + 32 * 32 + 16) for _ in range(3)]
    parameters = [torch.nn.Parameter(weight.clone()) for weight in others]
    adamw = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.5, betas=(0.8, 0.9), fused=True)
    for gradient in gradients:
        parts = gradient.split([weight.numel() for weight in others])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view(parameter.shape)
        adamw.step()
    for ours, theirs in zip(muon_steps(others, gradients), parameters, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("weight_decay", [0, 0.5])
def test_muon_is_that_of_pytorch(weight_decay):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon to compare with")
    torch.manual_seed(0)
    shapes = [(16, 24, 3, 3), (64, 32, 1, 1), (16, 24, 3, 3), (16,)]
    *kernels, bias = [torch.randn(shape) for shape in shapes]
    kernels[0] = kernels[0].to(memory_format=torch.channels_last)
    sizes = [kernel.numel() for kernel in kernels] + [bias.numel()]
    gradients = [torch.randn(sum(sizes)) for _ in range(3)]
    found = muon_steps([*kernels, bias], gradients, weight_decay)
    matrices = [torch.nn.Parameter(kernel.flatten(1).clone()) for kernel in kernels]
    muon = torch.optim.Muon(
        matrices, lr=0.1, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for gradient in gradients:
        for matrix, part in zip(matrices, gradient.split(sizes)[:-1], strict=True):
            matrix.grad = part.view(matrix.shape)
        muon.step()
    for ours, theirs, kernel in zip(found[:-1], matrices, kernels, strict=True):
        # PyTorch's iterates in bfloat16, which has 8 bits.
        difference = ours.flatten(1) - theirs.detach()
        assert difference.norm() < 0.02 * (ours - kernel).norm()


def test_orthogonal_gives_all_directions_about_the_same_weight():
    torch.manual_seed(0)
    for shape in ((2, 40, 360), (2, 360, 40)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.shape == (2, 40)
        assert values.min() > 0.65
        assert values.max() < 1.25
