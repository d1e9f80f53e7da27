"""Degradations: parameters and pixels are a function of the seed and the number of a patch."""

from collections import Counter
from math import pi, sqrt

import numpy as np
import pytest
import torch

from common.data.batches import load_batches
from common.data.cache import decode_pictures
from common.data.degradation import (
    Degradation,
    open_degradation,
    patch_generator,
    picture_generator,
)
from common.data.find import find_pictures
from common.data.patches import BenchmarkDataset, PatchDataset
from common.data.presets import INTERPOLATIONS, PHOTO, PRESETS
from common.files import checksum
from common.images.resize import imresize
from common.images.stages import (
    JPEG,
    Blur,
    CameraNoise,
    GaussianNoise,
    PoissonNoise,
    Resize,
    Sinc,
    apply_stages,
)
from common.images.tensors import to_tensor

N = 10_000


@pytest.fixture(scope="module")
def pictures(pictures_dir):
    return decode_pictures(find_pictures(pictures_dir, [2]), [2, 3])[0]


def make_patches(pictures, name="photo", scales=(2,), batch_size=4) -> PatchDataset:
    return PatchDataset(pictures, scales, 24, batch_size, 0, open_degradation(name))


# --------------------------------------------------------------------------------------- parameters


def drawn(name: str, scale: int, count: int) -> list[list]:
    return [PRESETS[name](patch_generator(0, number), scale) for number in range(count)]


def all_of(kind: type, recipes: list[list]) -> list:
    return [stage for stages in recipes for stage in stages if isinstance(stage, kind)]


def check_share(part: float, whole: float, probability: float) -> None:
    """Whether a share of draws is as probable as it should be, within five deviations."""
    deviation = sqrt(probability * (1 - probability) / whole)
    assert abs(part / whole - probability) < 5 * deviation + 1e-9, (part / whole, probability)


def check_range(values, low: float, high: float, gap: float = 0.02) -> None:
    """Whether values are in a range, and come near to both ends."""
    near = gap * (high - low)
    assert low <= min(values) <= low + near
    assert high - near <= max(values) <= high


def rounded(value):
    if isinstance(value, float):
        return round(value, 6)
    return [rounded(item) for item in value] if isinstance(value, tuple | list) else value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jpeg", "245600b1"),
        ("photo", "0d4f34b8"),
        ("bsrgan", "08292e8b"),
        ("realesrgan", "3e84d757"),
    ],
)
def test_the_same_parameters_on_every_machine(name, expected):
    # Numbers only: the bytes of a JPEG depend on the version of the library.
    facts = [
        [[type(stage).__name__, *rounded(stage)] for stage in stages]
        for scale in (2, 3, 4)
        for stages in drawn(name, scale, 100)
    ]
    assert checksum(facts)[:8] == expected


def test_jpeg():
    recipes = drawn("jpeg", 2, N)
    assert {stages[0] for stages in recipes} == {Resize(1 / 2, "matlab bicubic")}
    assert {len(stages) for stages in recipes} == {2}
    counts = Counter(stages[1].quality for stages in recipes)
    assert set(counts) == set(range(30, 96))
    check_share(counts[30], N, 1 / 66)
    check_share(counts[95], N, 1 / 66)


def test_jpeg_of_one_quality(hr):
    lr = Degradation("jpeg:50")(hr, 2, patch_generator(0, 0))
    assert np.array_equal(lr, apply(hr, Resize(1 / 2, "matlab bicubic"), JPEG(50)))
    assert open_degradation("jpeg:50").name == "jpeg:50"


def test_photo():
    drawn_recipes = drawn("photo", 4, N)
    recipes = [stages for stages in drawn_recipes if len(stages) > 1]
    clean = [stages for stages in drawn_recipes if len(stages) == 1]
    assert clean.count([Resize(1 / 4, "matlab bicubic")]) == len(clean)
    check_share(len(clean), N, 0.15)
    blurs, noises = all_of(Blur, recipes), all_of(GaussianNoise, recipes)
    check_share(len(blurs), len(recipes), 0.5)
    check_range([blur.sigma_x for blur in blurs], 0.4, 2.4)
    check_range([blur.sigma_y for blur in blurs], 0.4, 2.4)
    check_share(len(noises), len(recipes), 0.5)
    check_range([noise.level for noise in noises], 0.5, 6)
    check_share(sum(noise.channels == "gray" for noise in noises), len(noises), 1 / 3)
    for stages in recipes:
        *_, resize, jpeg = [stage for stage in stages if isinstance(stage, Resize | JPEG)]
        assert resize.factor == 1 / 4
        assert 40 <= jpeg.quality <= 95
    jpegs = [all_of(JPEG, [stages]) for stages in recipes]
    twice = [pair for pair in jpegs if len(pair) == 2]
    check_share(len(twice), len(recipes), 0.5)
    check_range([first.quality for first, _ in twice], 75, 95)
    check_range([stages[-1].quality for stages in recipes], 40, 95)
    kernels = Counter(resize.kernel for resize in all_of(Resize, recipes))
    assert set(kernels) == set(PHOTO.kernels)
    for count in kernels.values():
        check_share(count, kernels.total(), 1 / 5)
    first_sides = [4 * r.factor for r in all_of(Resize, recipes) if r.factor != 1 / 4]
    check_range(first_sides, 1, 2)
    colors = Counter(jpeg.subsampling for jpeg in all_of(JPEG, recipes))
    check_share(colors["4:4:4"], colors.total(), 0.2)


def test_bsrgan():
    scale = 4
    recipes = drawn("bsrgan", scale, N)
    halved = [stages for stages in recipes if stages[0] in HALVES]
    check_share(len(halved), N, 0.25)
    assert not any(stages[0] in HALVES for stages in drawn("bsrgan", 3, 100))
    recipes = [stages for stages in recipes if stages[0] not in HALVES]
    blurs = [blur for blur in all_of(Blur, recipes) if blur.size != 25 or not blur.shift]
    round_ones = [blur for blur in blurs if blur.sigma_x == blur.sigma_y]
    check_range([blur.sigma_x for blur in round_ones], 0, 2 + 0.2 * scale)
    others = [blur for blur in blurs if blur.sigma_x != blur.sigma_y]
    check_range([blur.sigma_x**2 for blur in others], 0, 4 + scale)
    check_range([blur.sigma_y**2 for blur in others], 0, 4 + scale)
    check_range([blur.angle for blur in others], 0, pi)
    assert {blur.size for blur in blurs} == set(range(7, 26, 2))
    check_share(len(round_ones), len(blurs), 0.5)
    assert len(blurs) == 2 * len(recipes)

    strided = [blur for blur in all_of(Blur, recipes) if blur.shift]
    check_share(len(strided), len(recipes), 0.25)
    assert {blur.shift for blur in strided} == {(scale - 1) / 2}
    check_range([blur.sigma_x for blur in strided], 0.1, 0.6 * scale)
    first_resizes = [
        next(stage for stage in stages if isinstance(stage, Resize)) for stages in recipes
    ]
    free = [resize.factor for resize in first_resizes if resize.kernel != "nearest"]
    check_range([1 / factor for factor in free], 1, 2 * scale)
    assert {resize.kernel for resize in first_resizes} == {*INTERPOLATIONS, "nearest"}
    resizes = [[stage for stage in stages if isinstance(stage, Resize)] for stages in recipes]
    assert {len(pair) for pair in resizes} == {2}
    assert {pair[1].factor for pair in resizes} == {1 / scale}

    noises = Counter(noise.channels for noise in all_of(GaussianNoise, recipes))
    assert noises.total() == len(recipes)
    for channels, probability in {"color": 0.4, "gray": 0.4, "mixed": 0.2}.items():
        check_share(noises[channels], len(recipes), probability)
    levels = {n.level for n in all_of(GaussianNoise, recipes) if n.channels != "mixed"}
    assert levels == set(range(2, 26))
    jpegs = all_of(JPEG, recipes)
    assert {jpeg.quality for jpeg in jpegs} == set(range(30, 96))
    assert {type(stages[-1]) for stages in recipes} == {JPEG}
    check_share(len(jpegs) - len(recipes), len(recipes), 0.9)
    cameras = all_of(CameraNoise, recipes)
    check_share(len(cameras), len(recipes), 0.25)
    check_range([camera.shot for camera in cameras], 1e-4, 0.012)
    # The order is random: of the two blurs, the noise and the two resizes, which are always there,
    # the noise comes first in a fifth.
    always = [all_of(Blur | GaussianNoise | Resize, [stages])[0] for stages in recipes]
    check_share(len(all_of(GaussianNoise, [always])), len(recipes), 1 / 5)


HALVES = [Resize(0.5, kernel) for kernel in (*INTERPOLATIONS, "matlab bicubic")]


def test_realesrgan():
    scale = 4
    recipes = drawn("realesrgan", scale, N)
    sizes = set(range(7, 22, 2))
    for number in range(2):  # the two orders
        parts = [split_orders(stages)[number] for stages in recipes]
        largest, level, strength = ((3, 30, 3), (1.5, 25, 2.5))[number]
        filters = [part[0] for part in parts if not isinstance(part[0], Resize)]
        check_share(len(filters), N, (1, 0.8)[number])
        blurs, sincs = all_of(Blur, [filters]), all_of(Sinc, [filters])
        check_share(len(sincs), len(filters), 0.1)
        assert {kernel.size for kernel in filters} == sizes
        for large in (False, True):
            cutoffs = [sinc.cutoff for sinc in sincs if (sinc.size >= 13) == large]
            check_range(cutoffs, pi / 5 if large else pi / 3, pi, gap=0.05)
        check_range([blur.sigma_x for blur in blurs], 0.2, largest)
        check_range([blur.sigma_y for blur in blurs], 0.2, largest)
        kinds = Counter((blur.profile, blur.sigma_x == blur.sigma_y) for blur in blurs)
        for profile, of_all in {"gaussian": (0.45, 0.25)}.items() | {
            "generalized": (0.12, 0.03),
            "plateau": (0.12, 0.03),
        }.items():
            for isotropic, probability in zip((True, False), of_all, strict=True):
                check_share(kinds[profile, isotropic], len(blurs), probability)
        shapes = [blur.beta for blur in blurs if blur.profile == "generalized"]
        check_range(shapes, 0.5, 4)
        check_share(sum(beta < 1 for beta in shapes), len(shapes), 0.5)
        shapes = [blur.beta for blur in blurs if blur.profile == "plateau"]
        check_range(shapes, 1, 2)
        check_share(sum(beta == 1 for beta in shapes), len(shapes), 0.5)

        resizes = [next(s for s in part if isinstance(s, Resize)) for part in parts]
        factors = [resize.factor * (1, scale)[number] for resize in resizes]
        check_range(factors, (0.15, 0.3)[number], (1.5, 1.2)[number])
        up, down, _ = ((0.2, 0.7, 0.1), (0.3, 0.4, 0.3))[number]
        check_share(sum(factor > 1 for factor in factors), N, up)
        check_share(sum(factor < 1 for factor in factors), N, down)
        assert {resize.kernel for resize in resizes} == set(INTERPOLATIONS)
        gaussian, poisson = all_of(GaussianNoise, parts), all_of(PoissonNoise, parts)
        check_share(len(gaussian), N, 0.5)
        assert len(gaussian) + len(poisson) == N
        check_range([noise.level for noise in gaussian], 1, level)
        check_range([noise.strength for noise in poisson], 0.05, strength)
        check_share(sum(n.channels == "gray" for n in gaussian), len(gaussian), 0.4)
        check_share(sum(n.gray for n in poisson), len(poisson), 0.4)

    ends = [split_orders(stages)[2] for stages in recipes]
    assert {next(s for s in end if isinstance(s, Resize)).factor for end in ends} == {1 / scale}
    check_share(sum(isinstance(end[-1], JPEG) for end in ends), N, 0.5)
    sincs = all_of(Sinc, ends)
    check_share(len(sincs), N, 0.8)
    check_range([sinc.cutoff for sinc in sincs], pi / 3, pi)
    assert {jpeg.quality for jpeg in all_of(JPEG, recipes)} == set(range(30, 96))
    assert len(all_of(JPEG, recipes)) == 2 * N


def split_orders(stages: list) -> tuple[list, list, list]:
    """First order, second order, and what follows the noise of the second."""
    noise = GaussianNoise | PoissonNoise
    first, second = (number for number, stage in enumerate(stages) if isinstance(stage, noise))
    return stages[: first + 1], stages[first + 2 : second + 1], stages[second + 1 :]


# ------------------------------------------------------------------------------------------- stages


@pytest.fixture(scope="module")
def hr(pictures):
    return np.array(pictures.hr(0)).view(np.uint8).reshape(80, 96, 3)


def apply(hr, *stages, seed=0) -> np.ndarray:
    return apply_stages(hr, stages, np.random.default_rng(seed))


def test_kernels():
    # Sums, the value in the middle and in the corner, of the formulas.
    kernel = Blur("gaussian", 7, 2.0, 1.0, angle=pi / 2).kernel()  # along the columns
    assert kernel.sum() == pytest.approx(1)
    assert kernel[3, 4] / kernel[3, 3] == pytest.approx(np.exp(-1 / 2))
    assert kernel[4, 3] / kernel[3, 3] == pytest.approx(np.exp(-1 / 8))
    kernel = Blur("generalized", 7, 1.0, 1.0, beta=2).kernel()
    assert kernel[3, 5] / kernel[3, 3] == pytest.approx(np.exp(-0.5 * 4**2))
    kernel = Blur("plateau", 7, 1.0, 1.0, beta=2).kernel()
    assert kernel[3, 5] / kernel[3, 3] == pytest.approx(1 / (1 + 4**2))
    kernel = Sinc(7, 2.0).kernel()
    assert kernel[3, 4] / kernel[3, 3] == pytest.approx(2 * 0.5767248078 / 2, rel=1e-6)  # J1(2)
    assert Blur("gaussian", 7, 0.0, 0.0).kernel()[3, 3] == 1  # no division by zero
    assert Blur("gaussian", 7, 1e-9, 1e-9, shift=0.5).kernel()[3:5, 3:5].min() == 0.25


def test_a_blur_is_a_convolution_with_mirrored_borders(hr):
    kernel = np.random.default_rng(0).random((5, 5))
    planes = np.moveaxis(hr, -1, 0).astype(np.float64)
    padded = np.pad(planes, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    expected = sum(
        kernel[row, column] * padded[:, row : row + 80, column : column + 96]
        for row in range(5)
        for column in range(5)
    )
    from common.images.stages import _convolve

    assert np.abs(_convolve(planes.astype(np.float32), kernel) - expected).max() < 1e-2


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("kernel", [*INTERPOLATIONS, *PHOTO.kernels])
def test_resizing_moves_nothing(hr, scale, kernel):
    """A ramp stays one: LR pixels lie in the middle of their HR pixels."""
    ramp = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, :, None] * 2, (80, 96, 3)).copy()
    lr = apply(ramp, Resize(1 / scale, kernel)).astype(int)
    expected = 2 * ((np.arange(96 // scale) + 0.5) * scale - 0.5)
    assert np.abs(lr[:, 4:-4, 1] - expected[4:-4]).max() <= 0.5 + 1e-6


def test_every_nth_pixel_behind_a_shifted_blur_moves_nothing():
    ramp = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, :, None] * 2, (96, 96, 3)).copy()
    for scale in (2, 3, 4):
        shift = (scale - 1) / 2
        stages = Blur("gaussian", 25, 1.0, 1.0, shift=shift), Resize(1 / scale, "nearest")
        lr = apply(ramp, *stages).astype(int)
        expected = 2 * ((np.arange(96 // scale) + 0.5) * scale - 0.5)
        assert np.abs(lr[:, 8:-8, 1] - expected[8:-8]).max() <= 0.5 + 1e-6


def test_bicubic_is_that_of_the_benchmarks(hr):
    expected = imresize(to_tensor(hr), 1 / 2).movedim(0, -1).numpy()
    assert np.array_equal(apply(hr, Resize(1 / 2, "matlab bicubic")), expected)


def test_levels_of_noise():
    gray = np.full((300, 300, 3), 128, np.uint8)
    noise = apply(gray, GaussianNoise(10.0, "color")) - 128.0
    assert noise.std() == pytest.approx(10, rel=0.02)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02
    noise = apply(gray, GaussianNoise(10.0, "gray")) - 128.0
    assert np.array_equal(noise[..., 0], noise[..., 1])
    mixture = (0.9, 0.5, 0.1, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)  # axes: R, G and B
    noise = apply(gray, GaussianNoise(25, "mixed", mixture)) - 128.0
    variances = noise.reshape(-1, 3).var(axis=0) / 25**2
    assert sorted(variances) == pytest.approx([0.1, 0.5, 0.9], rel=0.03)

    # One value in use: light 128 / 255 of one photon; with all 256 values, of 256 photons.
    noise = apply(gray, PoissonNoise(0.1, False)) - 128.0
    assert noise.std() == pytest.approx(0.1 * 255 * sqrt(128 / 255), rel=0.02)
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (2000, 256, 3)).copy()
    noise = apply(ramp, PoissonNoise(1.0, False)).astype(float) - ramp
    for light in (9, 40, 200):  # drawn as Poisson's, and as normal
        photons = light / 255 * 256
        assert noise[:, light].std() == pytest.approx(255 / 256 * sqrt(photons), rel=0.05)
    noise = apply(ramp, PoissonNoise(1.0, True)).astype(float) - ramp
    assert np.array_equal(noise[..., 0], noise[..., 2])

    noise = apply(gray, CameraNoise(0.01, 1e-4)) - 128.0
    light = (128 / 255) ** 2
    expected = 255 * sqrt(0.01 * light + 1e-4) / (2 * 128 / 255)  # the slope of the root
    assert noise.std() == pytest.approx(expected, rel=0.02)


# ------------------------------------------------------------------------------------------ patches


@pytest.mark.parametrize("name", PRESETS)
def test_patches_are_a_function_of_seed_and_number(pictures, name):
    patches, plain = make_patches(pictures, name), make_patches(pictures, "none")
    lr, hr = patches.__getitems__([9000, 3, 70000])
    for position, index in enumerate([9000, 3, 70000]):
        for ours, theirs in zip((lr, hr), patches[index], strict=True):
            assert torch.equal(ours[position], theirs)
        assert torch.equal(hr[position], plain[index][1])  # the same place in the same picture
    other = PatchDataset(pictures, [2], 24, 4, 1, Degradation(name))
    assert not torch.equal(other[3][0], patches[3][0])
    # Noise and blocks, and not another place: LR is nearer to its own bicubic than to others.
    lr, bicubic = (p.__getitems__(range(40))[0].float() for p in (patches, plain))
    errors = (lr[:, None] - bicubic[None]).square().mean(dim=(2, 3, 4))
    assert (errors.argmin(dim=1) == torch.arange(40)).float().mean() > 0.8
    assert not torch.equal(lr, bicubic)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_bring_the_same_bytes(pictures, workers):
    patches = make_patches(pictures, "realesrgan", [2, 3])
    alone = list(load_batches(patches, range(5)))
    with_workers = load_batches(patches, range(5), num_workers=workers)
    for pair, other in zip(alone, with_workers, strict=True):
        assert all(map(torch.equal, pair, other))


def test_processes_parts_and_later_starts_bring_the_same_bytes(pictures):
    patches = make_patches(pictures, "bsrgan", [2, 3])
    alone = [lr for lr, _ in load_batches(patches, range(6))]
    ranks = [
        [lr for lr, _ in load_batches(patches, range(6), parts=2, rank=rank, processes=2)]
        for rank in range(2)
    ]
    shares = [torch.cat(pair) for pair in zip(*ranks, strict=True)]
    for step, lr in enumerate(alone):
        assert torch.equal(torch.cat(shares[2 * step : 2 * step + 2]), lr)
    resumed = [lr for lr, _ in load_batches(patches, range(4, 6))]
    assert all(map(torch.equal, resumed, alone[4:]))


def test_threads_change_nothing(pictures):
    patches = make_patches(pictures, "realesrgan")
    before, threads = patches.__getitems__(range(8))[0], torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert torch.equal(patches.__getitems__(range(8))[0], before)
    finally:
        torch.set_num_threads(threads)


def test_grid_and_margin(pictures):
    """JPEG's grid begins anywhere in a patch, and 8 pixels on every side are dropped."""
    windows = []

    def places(hr, scale, generator):
        rows, columns = np.mgrid[: hr.shape[0] // scale, : hr.shape[1] // scale].astype(np.uint8)
        windows.append(hr)
        return np.stack([rows, columns, rows], axis=2)

    patches = make_patches(pictures, "none")
    patches.degradation = places
    corners = []
    for number in range(600):
        lr, hr = patches[number]
        top, left = int(lr[0, 0, 0]), int(lr[1, 0, 0])
        corners.append((top % 16, left % 16))
        height, width = (side // 2 for side in windows[-1].shape[:2])
        assert min(top, left, height - 12 - top, width - 12 - left) >= 8
        # HR lies at the same place of what was degraded, turned as HR is.
        inside = windows[-1][2 * top : 2 * top + 24, 2 * left : 2 * left + 24]
        assert np.array_equal(inside, hr.movedim(0, -1).numpy())
    assert {row for row, _ in corners} == {column for _, column in corners} == set(range(16))


def test_pixels_beyond_the_margin_do_not_count(pictures):
    """Other pixels around a window would change nothing, so its border does not show."""
    for stages in ([Blur("gaussian", 13, 1.2, 1.2), Resize(1 / 2, "pillow lanczos")],):
        hr = np.random.default_rng(0).integers(0, 256, (120, 120, 3)).astype(np.uint8)
        small = apply(np.ascontiguousarray(hr[20:100, 20:100]), *stages)
        assert np.array_equal(apply(hr, *stages)[18:-18, 18:-18], small[8:-8, 8:-8])


@pytest.mark.parametrize("name", PRESETS)
def test_pictures_smaller_than_the_margin(pictures_dir, name):
    found = find_pictures(pictures_dir, [2])[:2]
    pictures, _ = decode_pictures(found, [2, 4])
    patches = PatchDataset(pictures, [4], 80, 4, 0, Degradation(name))  # as high as the pictures
    lr, hr = patches.__getitems__(range(4))
    assert (lr.shape, hr.shape) == ((4, 3, 20, 20), (4, 3, 80, 80))
    assert len({bytes(patch.numpy()) for patch in lr}) == 4


# --------------------------------------------------------------------------------- whole pictures


def test_a_picture_is_degraded_by_its_name(pictures, pictures_dir):
    first = BenchmarkDataset(pictures, 2, Degradation("photo"))
    again = BenchmarkDataset(pictures.subset([5, 3]), 2, Degradation("photo"))
    for ours, theirs in ((5, 0), (3, 1)):
        assert torch.equal(first[ours][1], again[theirs][1])
    assert again.lr_checksum() != first.lr_checksum()
    lr = first[0][1]
    lr.zero_()  # the next reader gets LR of his own
    assert first[0][1].any()
    assert picture_generator("set/a.png").random() == picture_generator("set/a.webp").random()
    assert picture_generator("a.png").random() != picture_generator("b.png").random()
    name, lr, hr = BenchmarkDataset(pictures, 3, Degradation("realesrgan"))[1]
    assert (name, lr.shape, hr.shape) == ("1.png", (3, 26, 32), (3, 78, 96))
