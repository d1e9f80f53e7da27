"""Where patches are cut, by how many processes, and what is set while they are used."""

import pytest
import torch

from common.data.degradation import Degradation
from common.options import Arguments
from common.training import feed

CPU = torch.device("cpu")


def test_kernels_are_searched_while_batches_are_used(monkeypatch, processes):
    class Patches:
        def portions(self, begin, end, agree, deletes, stops):
            yield self, range(begin, end)

    class Pictures:
        patches = Patches()

    batch = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    monkeypatch.setattr("common.training.feed.load_batches", lambda *_, **__: [(batch, batch)] * 2)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    args = Arguments(gradient_accumulation_steps=1, num_workers=0, compile=None, batch_size=1)
    args.pictures_on = "loader"

    def use(fails):
        for _ in feed.feed(args, Pictures(), range(2), processes, CPU, bool):
            assert torch.backends.cudnn.benchmark
            if fails:
                raise KeyError

    use(fails=False)
    assert not torch.backends.cudnn.benchmark
    with pytest.raises(KeyError):
        use(fails=True)
    assert not torch.backends.cudnn.benchmark


def test_a_stream_warns_once_of_too_little_shared_memory(monkeypatch, processes, capsys):
    class Patches:
        def portions(self, begin, end, agree, deletes, stops):
            yield from ((self, range(step, step + 1)) for step in range(begin, end))

    class Pictures:
        patches = Patches()

    def load(patches, steps, *, warn, **options):
        warn(f"{64 - steps.start} MB are free")
        return []

    monkeypatch.setattr("common.training.feed.load_batches", load)
    args = Arguments(gradient_accumulation_steps=1, num_workers=2, pictures_on="loader")
    assert list(feed.feed(args, Pictures(), range(3), processes, CPU, bool)) == []
    assert capsys.readouterr().out.splitlines() == ["Warning: 64 MB are free"]


def test_who_cuts_by_itself(monkeypatch, processes):
    gpu = torch.device("cuda", 0)
    args = Arguments(pictures_on="auto")

    class Patches:
        degradation = None

    class Pictures:
        patches = Patches()

    def choice(device, free, patches=Pictures.patches):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
        return feed._place(args, Pictures(), patches, processes, device)

    class Placed:
        def __init__(self, patches, device):
            pass

        @staticmethod
        def bytes_needed(patches):
            return 100

    monkeypatch.setattr(feed, "DevicePatches", Placed)
    assert choice(CPU, 10**9) is None
    assert choice(gpu, 399) is None
    assert isinstance(choice(gpu, 400), Placed)
    assert choice(gpu, 400, patches=Patches()) is None  # a part of a stream
    degraded = Pictures.patches = Patches()
    degraded.degradation = Degradation("jpeg")
    assert choice(gpu, 400, patches=degraded) is None


@pytest.mark.parametrize(
    ("batch_size", "patch_size", "on_cpu", "on_gpu"),
    [(32, 128, 0, 2), (64, 48, 0, 0), (16, 33, 0, 0), (16, 96, 0, 0)],
    ids=["a2n", "vdsr", "srcnn", "srgan"],
)
def test_workers_where_they_pay(monkeypatch, batch_size, patch_size, on_cpu, on_gpu):
    args = Arguments(batch_size=batch_size, patch_size=patch_size, num_workers=None)
    args.gradient_accumulation_steps, args.degradation = 1, "none"
    assert feed.number_of_workers(args, 1, CPU) == on_cpu
    assert feed.number_of_workers(args, 1, torch.device("cuda")) == on_gpu
    assert feed.number_of_workers(args, 4, torch.device("cuda")) == 0
    args.degradation = "photo"
    monkeypatch.setattr(feed, "count_cores", lambda: 64)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert feed.number_of_workers(args, 1, CPU) == 0
    assert feed.number_of_workers(args, 16, torch.device("cuda")) == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert feed.number_of_workers(args, 16, torch.device("cuda")) == 8  # of two machines
    args.num_workers = 7
    assert feed.number_of_workers(args, 1, CPU) == 7
