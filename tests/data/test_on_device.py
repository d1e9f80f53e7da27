"""Patches cut on the device are those of the loader, byte for byte."""

import pytest
import torch

from common.data.cache import decode_pictures
from common.data.find import find_pictures
from common.data.on_device import DevicePatches
from common.data.patches import PatchDataset
from common.training import feed
from running import ONE_OR_ALL, OWN, SCRIPT, SMALL, metrics, refusal, run_here, run_two

CPU = torch.device("cpu")
# Scales and sides of the networks: SRCNN, A2N, SRGAN, VDSR.
CASES = [([2], 24), ([3], 33), ([4], 24), ([8], 24), ([2, 3, 4], 48)]


@pytest.mark.parametrize("permutes_channels", [False, True])
@pytest.mark.parametrize(("scales", "patch_size"), CASES)
def test_patches_on_the_device_are_those_of_the_loader(
    scales, patch_size, permutes_channels, pictures_dir
):
    pictures, _ = decode_pictures(find_pictures(pictures_dir, scales), scales)
    patches = PatchDataset(pictures, scales, patch_size, 8, 3, None, permutes_channels)
    placed = DevicePatches(patches, CPU)
    seen = set()
    for step in (*range(12), 511, 512):  # and over the border of a block of 4096
        numbers = range(step * 8, step * 8 + 8)
        expected, found = patches.__getitems__(numbers), placed.batch(numbers)
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours, theirs)
            assert ours.stride() == theirs.stride()  # channels last
        places = patches.places(numbers, scales[0])
        seen |= set(places[3].tolist())
    assert seen == set(range(8))
    bytes_there = sum(pixels.numel() for pixels in placed._pixels.values())
    assert DevicePatches.bytes_needed(patches) == bytes_there


@pytest.mark.parametrize("script", ONE_OR_ALL)
def test_a_training_is_the_same_with_the_pictures_on_the_device(script, pictures_dir, tmp_path):
    options = (*SMALL, *OWN.get(script, []), "--max_train_steps", 4, "--seed", 5)
    options += ("--train_data_dir", pictures_dir, "--gradient_accumulation_steps", 2)
    found = []
    for place in ("device", "loader"):
        folder = tmp_path / place
        run_here(script, *options, "--pictures_on", place, "--output_dir", folder)
        found.append(metrics(folder))
    assert found[0] == found[1]


def test_pictures_that_do_not_fit_are_said(pictures_dir, tmp_path, monkeypatch):
    def fail(patches, device):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(feed.DevicePatches, "__init__", lambda self, *_: fail(*_))
    options = (*SMALL, "--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run")
    message = refusal(SCRIPT, *options, "--pictures_on", "device")
    assert message.startswith("--pictures_on device: the pictures, 0.00 GB, do not fit there (Out")
    assert message.endswith("Leave it out, or give --pictures_on loader.")


@pytest.mark.slow
def test_two_processes_share_the_patches_on_the_device(pictures_dir, tmp_path):
    options = (*SMALL, "--max_train_steps", 4, "--train_data_dir", pictures_dir)
    options += ("--gradient_accumulation_steps", 2)
    for place in ("device", "loader"):
        folder = tmp_path / place
        run_two(SCRIPT, *options, "--pictures_on", place, "--output_dir", folder)
    assert metrics(tmp_path / "device") == metrics(tmp_path / "loader")
