"""Patches: a function of the seed and the index alone, cut where their LR is."""

import pickle
import shutil
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_convert

from common.data.cache import decode_pictures
from common.data.find import find_pictures
from common.data.patches import CHANNEL_ORDERS, PatchDataset, too_small_to_score
from common.errors import UserError
from common.images.resize import imresize
from helpers.pictures import write


@pytest.fixture
def pictures(pictures_dir):
    return decode_pictures(find_pictures(pictures_dir, [2]), [2, 3])[0]


def test_a_phase_without_steps_has_no_portion(pictures):
    patches = PatchDataset(pictures, [2], patch_size=8, batch_size=4, seed=0)
    assert list(patches.portions(3, 3, str, deletes=False)) == []
    assert list(patches.portions(3, 5, str, deletes=False)) == [(patches, range(3, 5))]


def test_patch_is_where_its_lr_is(pictures):
    patches = PatchDataset(pictures, [2], patch_size=80, batch_size=4, seed=0)
    # Away from the borders of a patch, LR is the bicubic of HR in whatever orientation it came.
    # MATLAB rounds after the pass over the rows, which in a transposed patch are the columns.
    inside = (slice(None), slice(4, -4), slice(4, -4))
    transposed = 0
    for index in range(40):
        lr, hr = patches[index]
        assert (lr.dtype, lr.shape, hr.shape) == (torch.uint8, (3, 40, 40), (3, 80, 80))
        if not torch.equal(imresize(hr, 0.5)[inside], lr[inside]):
            assert torch.equal(imresize(hr.mT, 0.5).mT[inside], lr[inside])
            transposed += 1
    assert 10 < transposed < 30


def test_all_positions_orientations_and_pictures_occur(tmp_path):
    # Every pixel of these pictures is its own: a patch tells where it was cut.
    for number in range(3):
        row, column = np.mgrid[:10, :10]
        pixels = np.stack([row, column, np.full_like(row, number)], axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    pictures, _ = decode_pictures(find_pictures(tmp_path, [2]), [2])
    patches = PatchDataset(pictures, [2], patch_size=4, batch_size=4, seed=0)
    seen = set()
    for index in range(12_000):
        hr = patches[index][1]
        rows, columns = hr[0], hr[1]
        corners = (int(hr[0, 0, 0]), int(hr[1, 0, 0]), int(hr[0, 0, 1]), int(hr[1, 0, 1]))
        assert rows.min() % 2 == columns.min() % 2 == 0  # on the LR grid
        turned = bool(rows[0, 0] != rows[0, 1])
        seen.add((int(hr[2, 0, 0]), corners, turned, bool(rows[0, 0] < rows[-1, -1])))
    assert len(seen) == 3 * 4 * 4 * 8


def test_channels_come_in_all_orders_and_nothing_else_changes(pictures):
    plain = PatchDataset(pictures, [2], patch_size=32, batch_size=4, seed=0)
    permuted = PatchDataset(pictures, [2], 32, 4, 0, permutes_channels=True)
    orders = permuted.places(range(60), 2)[4]
    assert np.bincount(orders, minlength=6).min() >= 3  # of 60 draws
    assert sorted(map(tuple, CHANNEL_ORDERS)) == sorted(permutations(range(3)))
    assert CHANNEL_ORDERS[0].tolist() == [0, 1, 2]
    for index, order in enumerate(orders):
        for ours, theirs in zip(permuted[index], plain[index], strict=True):
            assert torch.equal(ours, theirs[CHANNEL_ORDERS[order]])


def test_a_degradation_gets_the_channels_in_their_new_order(pictures):
    def mute_blue(hr, scale, generator):
        return hr[::scale, ::scale] * np.array([1, 1, 0], np.uint8)

    lr, hr = PatchDataset(pictures, [2], 32, 4, 0, mute_blue, permutes_channels=True)[5]
    assert torch.equal(lr[:2], hr[:2, ::2, ::2])
    assert lr[2].max() == 0 < hr[2].max()


def test_a_picture_without_a_pixel_of_lr_is_smaller_than_a_patch(tmp_path):
    for name, size in (("large.png", (16, 16)), ("dot.png", (1, 1)), ("line.png", (16, 2))):
        write(tmp_path / name, size)
    pictures, errors = decode_pictures(find_pictures(tmp_path, [2, 3]), [2, 3])
    assert errors == {}
    patches = PatchDataset(pictures, [2, 3], patch_size=12, batch_size=4, seed=0)
    assert patches.too_small == ["dot.png", "line.png"]
    assert patches[0][1].shape == (3, 12, 12)
    assert too_small_to_score(pictures, [2]) == ["dot.png", "line.png"]


def test_patch_depends_on_seed_and_index_alone(pictures):
    first = PatchDataset(pictures, [2], 32, batch_size=4, seed=1)
    again = PatchDataset(pictures, [2], 32, batch_size=4, seed=1)
    assert first.scale(7) == 2
    batch = first.__getitems__([9000, 3, 70000])
    for position, index in enumerate([9000, 3, 70000]):
        for ours, theirs in zip(batch, again[index], strict=True):
            assert torch.equal(ours[position], theirs)
    assert not torch.equal(PatchDataset(pictures, [2], 32, batch_size=4, seed=2)[3][1], again[3][1])


def test_scale_of_a_batch_depends_on_seed_and_step_alone(pictures):
    patches = PatchDataset(pictures, [2, 3], 24, batch_size=4, seed=1)
    scales = [patches.scale(step) for step in range(1000)]
    assert scales == [patches.scale(step) for step in range(1000)]
    assert 440 < scales.count(2) < 560
    assert scales.count(2) + scales.count(3) == 1000
    other = PatchDataset(pictures, [2, 3], 24, batch_size=4, seed=2)
    assert scales != [other.scale(step) for step in range(1000)]
    for step in range(6):
        # A whole step, and the halves of two processes.
        lr, hr = patches.__getitems__(range(4 * step, 4 * step + 4))
        assert lr.shape == (4, 3, 24 // scales[step], 24 // scales[step])
        assert hr.shape == (4, 3, 24, 24)
        halves = [
            patches.__getitems__(range(4 * step + start, 4 * step + start + 2)) for start in (0, 2)
        ]
        assert torch.equal(torch.cat([half for half, _ in halves]), lr)


@pytest.mark.parametrize("context", ["fork", "forkserver"])  # which pickles, as spawn does
def test_workers_bring_the_same_bytes(pictures, context):
    patches = PatchDataset(pictures, [2], 32, batch_size=4, seed=0)
    loader = DataLoader(
        patches,
        batch_sampler=[range(8 * step, 8 * step + 8) for step in range(6)],
        num_workers=2,
        collate_fn=default_convert,
        multiprocessing_context=context,
    )
    for step, (lr, hr) in enumerate(loader):
        expected_lr, expected_hr = patches.__getitems__(range(8 * step, 8 * step + 8))
        assert torch.equal(lr, expected_lr)
        assert torch.equal(hr, expected_hr)


def test_batches_are_channels_last(pictures):
    for images in PatchDataset(pictures, [2], 32, batch_size=4, seed=0).__getitems__(range(4)):
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_pixels_are_those_of_the_mapped_file(pictures):
    # Two looks at a picture must be at the same memory; copies would fill it in the end.
    for index in (0, 7):
        again = pictures.subset([index])
        assert np.shares_memory(pictures.hr(index), again.hr(0))
        assert np.shares_memory(pictures.lr(index, 3), again.lr(0, 3))


def test_pictures_travel_to_a_worker_without_their_pixels(pictures):
    pictures.hr(0)
    assert len(pickle.dumps(pictures)) < 20_000
    assert np.array_equal(pickle.loads(pickle.dumps(pictures)).hr(0), pictures.hr(0))


def test_small_pictures_are_left_out_by_name(pictures_dir, tmp_path):
    shutil.copytree(pictures_dir, tmp_path, dirs_exist_ok=True)
    write(tmp_path / "small.png", (100, 31))
    pictures, _ = decode_pictures(find_pictures(tmp_path, [2]), [2])
    patches = PatchDataset(pictures, [2], 32, batch_size=4, seed=0)
    assert patches.too_small == ["small.png"]
    assert len(patches.pictures) == 8
    with pytest.raises(UserError, match=r"All 9 training pictures are smaller than .* 98x98"):
        PatchDataset(pictures, [2], 98, batch_size=4, seed=0)
    with pytest.raises(ValueError, match="33 is not a multiple of scale 2"):
        PatchDataset(pictures, [2], 33, batch_size=4, seed=0)
