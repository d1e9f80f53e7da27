"""The parts of a batch that fit into the memory."""

from types import SimpleNamespace

import pytest
import torch

from common.data.cache import decode_pictures
from common.data.find import find_pictures
from common.data.patches import PatchDataset
from common.errors import UserError
from common.options import Arguments
from common.training.parts import find_parts
from running import SCRIPT, SMALL, SRGAN, metrics, refusal, run_here
from train_srcnn import SRCNN


class Little(SRCNN):
    """Has memory for so many patches at once."""

    memory, tried = 3, []

    def forward(self, lr):
        self.tried.append(tuple(lr.shape))
        if len(lr) > self.memory:
            raise RuntimeError("CUDA error: out of memory")
        return super().forward(lr)


def test_as_few_parts_as_fit(processes, monkeypatch, capsys):
    monkeypatch.setattr(Little, "tried", [])
    network = Little(2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    args = Arguments(batch_size=12, patch_size=24)
    pictures = SimpleNamespace(patches=None)  # as of a stream
    assert find_parts(network, args, processes, pictures) == 4
    assert Little.tried == [(number, 3, 12, 12) for number in (12, 6, 4, 3)]
    assert capsys.readouterr().out == "A batch fits into the memory in 4 parts.\n"
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    monkeypatch.setattr(Little, "memory", 0)
    message = "^Not even one patch of 24x24 at a time fits into the memory"
    with pytest.raises(UserError, match=message):
        find_parts(network, args, processes, pictures)


def test_room_is_left_for_pictures_on_the_device(pictures_dir, processes, monkeypatch):
    pictures, _ = decode_pictures(find_pictures(pictures_dir, [2]), [2])
    patches = PatchDataset(pictures, [2], patch_size=24, batch_size=3, seed=0)
    args = Arguments(batch_size=3, patch_size=24, pictures_on="device")
    held, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **how: held.append(size) or empty(*size))
    for place, taken in (("device", 8 * 96 * 80 * 3 * 5 // 4), ("loader", 0), ("auto", 0)):
        args.pictures_on = place
        assert find_parts(Little(2), args, processes, SimpleNamespace(patches=patches)) == 1
        assert (taken,) in held
        held.clear()


def test_all_processes_have_the_parts_of_the_smallest_memory(processes, monkeypatch):
    monkeypatch.setattr(Little, "memory", 100)
    answers = [[True, False], [True, True]]
    monkeypatch.setattr(processes, "gather", lambda value: answers.pop(0))
    processes.count = 2
    args, pictures = Arguments(batch_size=12, patch_size=24), SimpleNamespace(patches=None)
    assert find_parts(Little(2), args, processes, pictures) == 2


def test_a_training_in_the_parts_that_fit(pictures_dir, tmp_path, monkeypatch):
    real = SRCNN.forward

    def forward(self, lr):
        if self.training and len(lr) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, lr)

    common = (*SMALL, "--scale", 2, "--max_train_steps", 2, "--train_data_dir", pictures_dir)
    whole = run_here(SCRIPT, *common, "--output_dir", tmp_path / "whole")
    assert " parts" not in whole.stdout
    monkeypatch.setattr(SRCNN, "forward", forward)
    options = (*common, "--gradient_accumulation_steps", "auto")
    run = run_here(SCRIPT, *options, "--output_dir", tmp_path / "auto")
    assert "Batch: 4 patches in 2 parts\n" in run.stdout
    assert '"gradient_accumulation_steps": 2,' in (tmp_path / "auto" / "args.json").read_text()
    rows = zip(metrics(tmp_path / "auto"), metrics(tmp_path / "whole"), strict=True)
    assert all(one == pytest.approx(other, rel=1e-4) for one, other in rows)


def test_not_where_the_parts_belong_to_the_recipe(tmp_path):
    message = refusal(SRGAN, "--gradient_accumulation_steps", "auto")
    assert "the parts belong to the recipe of this network" in message
