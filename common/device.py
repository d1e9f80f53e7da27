"""The device that computes: its memory, the precision of its float32, the search for kernels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Words of RuntimeErrors for a lack of memory: of the allocators, the driver, cuDNN and cuBLAS. The
# allocator's own error is a torch.OutOfMemoryError, but libraries ask the driver beside it.
OUT_OF_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "HIP out of memory",
    "HIP error: out of memory",
    "XPU out of memory",
    "MPS backend out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",  # Windows
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "unable to find an engine",  # cuDNN found no memory for the workspace of any
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less at once could help: the memory ran out, of the device or of the machine.

    `unable to find an engine` can have other causes, so who tries less must end with the first
    error if that does not help.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, RuntimeError) and any(words in f"{error}" for words in OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)  # a compiler's


def forget(error: BaseException) -> None:
    """Takes an error's traceback away, whose frames hold tensors, and frees what nobody holds.

    PyTorch's allocator would use that memory again by itself; libraries beside it could not.
    """
    part: BaseException | None = error
    while part is not None:
        part.__traceback__ = None
        part = part.__cause__ or part.__context__
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def true_float32() -> Iterator[None]:
    """Computes float32 as float32, not as TF32 or bfloat16, whatever the program has allowed.

    PyTorch 2.9 has new settings beside the old ones, and raises where an old one is read that
    differs from a new one. Both are set here, and are afterwards as they were before.
    """
    backends: Any = torch.backends
    old: list[tuple[Callable[[], Any], Callable[[Any], None], Any]] = [
        (
            lambda: backends.cudnn.allow_tf32,
            lambda value: setattr(backends.cudnn, "allow_tf32", value),
            False,
        ),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    ]
    new: list[Any] = []
    if hasattr(backends.cudnn, "conv"):
        new = [backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv]
        new += [backends.mkldnn.matmul]
    precisions = [part.fp32_precision for part in new]
    changed = []
    for read, write, value in old:
        try:
            before = read()
        except RuntimeError:  # the program uses the new settings
            continue
        if before != value:
            changed.append((write, before))
            write(value)
    for part in new:
        part.fp32_precision = "ieee"
    try:
        yield
    finally:
        for write, before in changed:
            write(before)
        for part, precision in zip(new, precisions, strict=True):
            part.fp32_precision = precision


@contextmanager
def kernel_search(wanted: bool) -> Iterator[None]:
    """Lets cuDNN time its algorithms for each new shape, or forbids it.

    That pays where shapes are fixed, in training, and costs where each picture has its own.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def evaluating() -> Iterator[None]:
    """Computes as networks are evaluated: without gradients, in true float32, in sizes that vary.

    It is a decorator as well.
    """
    with torch.no_grad(), true_float32(), kernel_search(False):
        yield
