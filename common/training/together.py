"""The processes of a run, by Accelerate: what they know and do together, who speaks for them."""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.launcher import ON_CPUS, is_one_for_several
from common.machine import check_compiler, check_processes_meet
from common.network import SuperResolutionModel
from common.terminal import end_bars, say
from common.training.compiling import compiler_options

if TYPE_CHECKING:
    from accelerate import Accelerator

    from common.options import Arguments

T = TypeVar("T")


class Processes:
    """All processes of a run. Where nothing else is said, all of them call a method together.

    Attributes:
        rank: Number of this process.
        count: Number of processes.
        is_main: Whether this process prints and writes.
        is_main_of_machine: Whether this process does what each machine needs once.
    """

    def __init__(self, accelerator: "Accelerator") -> None:
        self.rank, self.count = accelerator.process_index, accelerator.num_processes
        self.is_main = accelerator.is_main_process
        self.is_main_of_machine = accelerator.is_local_main_process

    def print(self, text: str) -> None:
        """Prints once, above the progress bar. One process may call it alone."""
        if self.is_main:
            say(text)

    def warn(self, text: str) -> None:
        self.print(f"Warning: {text}")

    def fail(self, message: str) -> NoReturn:
        """Ends all processes; the message is printed once.

        Raises:
            UserError: This is the main process. The others exit with status 1.
        """
        if not self.is_main:
            raise SystemExit(1)
        end_bars()
        raise UserError(message)

    def gather(self, value: T) -> list[T]:
        """Values of all processes, in the order of the ranks."""
        from accelerate.utils import gather_object

        return gather_object([value])

    def agree(self, error: str) -> str:
        """Returns the first error of any process, "" if no process has one."""
        return next(filter(None, self.gather(error)), "")

    def error_of(self, action: Callable[[], object]) -> str:
        """Runs `action` on every process and returns the first error message of any, "" if none.

        Without it, the others would wait for the one that failed. Python, PyTorch and Rust each
        have errors of their own for a disk that is full.
        """
        error = ""
        try:
            action()
        except Exception as exception:
            error = " ".join(str(exception).split())[:300]
            if "inline_container" in error:  # PyTorch's word for a file that it cannot write
                error = "a file could not be written"
            elif not isinstance(exception, OSError):
                error = f"{type(exception).__name__}: {error}"
        return self.agree(error)

    def from_main(self, action: Callable[[], T]) -> T:
        """Runs `action` on the main process and gives its result to all.

        Raises:
            UserError: The action raised one, or an OSError. All processes end.
        """
        from accelerate.utils import broadcast_object_list

        found: list[Any] = [None, ""]
        if self.is_main:
            try:
                found[0] = action()
            except (UserError, OSError) as error:
                found[1] = f"{error}"
        result, message = broadcast_object_list(found)
        if message:
            self.fail(message)
        return result

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over the processes."""
        from accelerate.utils import reduce

        return reduce(value, "mean")

    def broadcast(self, tensor: Tensor) -> None:
        """Overwrites a tensor by that of the main process."""
        from accelerate.utils import broadcast

        with torch.no_grad():
            broadcast(tensor)


def make_accelerator(
    args: "Arguments", compile_options: dict[str, Any] | None = None
) -> "Accelerator":
    """Makes Accelerate's Accelerator, by the options of a run."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.utils import (
        DataLoaderConfiguration,
        DistributedDataParallelKwargs,
        GradientAccumulationPlugin,
        TorchDynamoPlugin,
    )

    class Wrapping(DistributedDataParallelKwargs):
        """Batch normalization's statistics are broadcast when they are used, not every step."""

        def to_kwargs(self) -> dict[str, Any]:
            known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
            # PyTorch 2.14 warns of the old name, and Accelerate knows no other.
            names = ("forward_sync_buffers", "broadcast_buffers")
            name = next(name for name in names if name in known)
            return {name: False, "gradient_as_bucket_view": True}

    # An earlier run of this process, in a notebook for example, may have had another precision,
    # which Accelerate would refuse. The device and the group of processes stay.
    AcceleratorState._reset_state()
    GradientState._reset_state()
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        project_dir=args.output_dir,
        dynamo_plugin=TorchDynamoPlugin("inductor", options=compiler_options(args, compile_options))
        if args.compile
        else None,
        # (An environment variable would override the plain argument.)
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=_parts(args)),
        # --batch_size counts the patches of all processes; so does a step of the scheduler.
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    accelerator.ddp_handler = Wrapping()  # (as an argument it would have to be of the class itself)
    return accelerator


def _parts(args: "Arguments") -> int:
    """Parts of a batch; 1 as long as `auto` has not found out."""
    parts = args.gradient_accumulation_steps
    return parts if isinstance(parts, int) else 1


def check_processes(args: "Arguments", accelerator: "Accelerator") -> None:
    """Checks what only Accelerate knows: the number of processes, and the device.

    Raises:
        UserError: The processes cannot train together, the batch does not divide among them, the
            precision does not work, or there is no compiler.
    """
    batch_size, processes = args.batch_size, accelerator.num_processes
    check_processes_meet(processes)
    if is_one_for_several():
        say(
            "Warning: where there is no GPU, `accelerate launch` starts one process, whatever "
            "--num_processes says. This one trains alone. Several on CPUs are started by "
            f"`{ON_CPUS}`."
        )
    parts = _parts(args)
    if batch_size % (processes * parts):
        divisor = processes * parts
        facts = [f"--batch_size {batch_size}"]
        if processes > 1:
            facts.append(f"is that of all {processes} processes together")
        if parts > 1:
            facts.append(f"comes in --gradient_accumulation_steps {parts} parts")
        raise UserError(
            f"{' '.join(facts[:2])}{''.join(f', {fact}' for fact in facts[2:])} and must be a "
            f"multiple of {divisor}, for example {-(-batch_size // divisor) * divisor}."
        )
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "fp16":
        raise UserError("fp16 does not work on a CPU. Use --mixed_precision bf16 or no.")
    if args.compile:
        check_compiler(accelerator.device)


def unwrap(
    accelerator: "Accelerator",
    model: nn.Module,
    optimizers: Sequence[Any],
    schedulers: Sequence[Any],
) -> SuperResolutionModel:
    """Returns the network without Accelerate's wrappers; refuses one that was not prepared.

    Without them each process would train by itself, or a network would be trained in another
    precision than asked for, without a word. (In float32 on one process, an unprepared model is the
    same as a prepared one, and passes.)

    Raises:
        TypeError: Something was not prepared.
    """
    from accelerate.optimizer import AcceleratedOptimizer
    from accelerate.scheduler import AcceleratedScheduler

    network = accelerator.unwrap_model(model, keep_torch_compile=False)
    precision, processes = accelerator.mixed_precision, accelerator.num_processes
    kinds = (AcceleratedOptimizer,) * len(optimizers) + (AcceleratedScheduler,) * len(schedulers)
    reason = ""
    if processes > 1 and not isinstance(model, nn.parallel.DistributedDataParallel):
        reason = f"its gradients are not averaged over the {processes} processes"
    elif precision != "no" and "forward" not in vars(network):
        reason = f"it does not compute in {precision}"
    for kind, item in zip(kinds, (*optimizers, *schedulers), strict=True):
        if not isinstance(item, kind):
            model, reason = item, f"it is no {kind.__name__}"
    if reason:
        raise TypeError(
            f"Run.begin got {type(model).__name__}, which was not prepared: {reason}. Give it what "
            "accelerator.prepare returned."
        )
    return network
