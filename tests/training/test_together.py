import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn

from common.errors import UserError
from common.options import Arguments
from common.training.together import Processes, check_processes, unwrap
from running import refusal


def test_an_error_becomes_a_message_of_one_line(processes):
    def fail(error):
        def action():
            raise error

        return processes.error_of(action)

    assert processes.error_of(lambda: None) == ""
    assert fail(OSError(28, "No space left")) == "[Errno 28] No space left"
    assert fail(ValueError("two\n  lines")) == "ValueError: two lines"
    assert fail(RuntimeError("[enforce fail at inline_container.cc:664]")) == (
        "a file could not be written"
    )
    assert len(fail(ValueError("x" * 1000))) < 320


def test_only_the_main_process_prints_and_has_a_message(accelerator, capsys):
    main = Processes(accelerator)
    accelerator.process_index, accelerator.is_main_process = 1, False
    other = Processes(accelerator)
    for process in (main, other):
        process.warn("a line")
    assert capsys.readouterr().out == "Warning: a line\n"
    with pytest.raises(UserError, match="it failed"):
        main.fail("it failed")
    with pytest.raises(SystemExit) as end:
        other.fail("it failed")
    assert end.value.code == 1
    assert not isinstance(end.value, UserError)


def test_all_get_the_result_or_the_error_of_the_main_process(processes):
    def fail():
        raise OSError("read-only")

    assert processes.from_main(lambda: [1, 2]) == [1, 2]
    with pytest.raises(UserError, match="read-only"):
        processes.from_main(fail)


class Unwrapping:
    """Accelerate's `unwrap_model`, for models that are DDP or not."""

    def __init__(self, mixed_precision: str, num_processes: int) -> None:
        self.mixed_precision, self.num_processes = mixed_precision, num_processes

    def unwrap_model(self, model, **_):
        return model


@pytest.mark.parametrize(
    ("precision", "processes", "message"),
    [
        ("bf16", 1, "Linear, which was not prepared: it does not compute in bf16"),
        ("no", 2, "its gradients are not averaged over the 2 processes"),
    ],
)
def test_a_model_that_was_not_prepared_is_refused(precision, processes, message):
    with pytest.raises(TypeError, match=message):
        unwrap(Unwrapping(precision, processes), nn.Linear(1, 1), [], [])


def test_an_optimizer_that_was_not_prepared_is_refused():
    accelerator = Accelerator(cpu=True)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(TypeError, match="got SGD, which was not prepared: it is no Acceler"):
        unwrap(accelerator, model, [optimizer], [])
    prepared = accelerator.prepare(optimizer)
    assert unwrap(accelerator, model, [prepared], []) is model
    AcceleratorState._reset_state()
    GradientState._reset_state()


@pytest.mark.parametrize(
    ("batch_size", "count", "parts", "message"),
    [
        (3, 2, 1, "3 is that of all 2 processes together and must be a multiple of 2, for exampl"),
        (6, 1, 4, "6 comes in --gradient_accumulation_steps 4 parts and must be a multiple of 4, "),
        (9, 2, 4, "9 is that of all 2 processes together, comes in --gradient_accumulation_steps "),
    ],
)
def test_a_batch_that_does_not_divide(accelerator, batch_size, count, parts, message):
    accelerator.num_processes, accelerator.device = count, torch.device("cpu")
    args = Arguments(batch_size=batch_size, gradient_accumulation_steps=parts, compile=False)
    with pytest.raises(UserError, match=f"^--batch_size {message}"):
        check_processes(args, accelerator)
    args.batch_size = count * parts
    check_processes(args, accelerator)


def check(accelerator) -> None:
    accelerator.num_processes, accelerator.device = 1, torch.device("cpu")
    args = Arguments(batch_size=4, gradient_accumulation_steps=1, compile=False)
    check_processes(args, accelerator)


def test_processes_that_would_each_train_alone_are_refused(accelerator, monkeypatch):
    """`accelerate launch --multi_gpu` starts them where PyTorch sees no GPU."""
    check(accelerator)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"PyTorch sees no GPU .* torch\.distributed\.run"):
        check(accelerator)


@pytest.mark.parametrize(
    "command",
    [
        "upscale.py nothing.png",
        "evaluate.py --model a2n-x2 --benchmarks sample",
        "interpolate.py a2n-x2 a2n-x2 --curve 2",
    ],
)
def test_processes_that_would_each_do_all_are_refused(command):
    launched = {"WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "false"}
    assert "PyTorch sees no GPU by which" in refusal(*command.split(), **launched)


def test_one_process_in_place_of_several_is_told(accelerator, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    check(accelerator)
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("MASTER_PORT", "29500")  # as left by --num_processes 2 without a GPU
    check(accelerator)
    assert capsys.readouterr().out.startswith("Warning: where there is no GPU, `accelerate launch`")
