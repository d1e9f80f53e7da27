"""Pictures in tiles are as whole ones, and the self-ensemble is what it says.

Every processor, and every size of an image, has its own order in which float32 is summed. So a
test asks for equal pixels only of networks whose sums are exact, or of images of one size.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import common.inference
import train_srcnn
import train_vdsr
from common.data.find import sample_pictures
from common.errors import UserError
from common.images.formats import Picture, read_rgb
from common.inference import Enlarger, SelfEnsemble
from common.network import SuperResolutionModel
from convert_published import convert
from running import assert_nearly_equal
from train_a2n import A2N
from train_srcnn import SRCNN
from train_srgan import SRGAN
from train_vdsr import VDSR

CPU = torch.device("cpu")
NETWORKS = {
    "srcnn": lambda: SRCNN(2, "9-5-5"),
    "srcnn-x3": lambda: SRCNN(3, "9-5-5"),
    "vdsr": lambda: VDSR([2, 3], num_layers=6, num_features=8),
    "srgan": lambda: SRGAN(4, num_blocks=3, num_features=8),
    "srgan-x3": lambda: SRGAN(3, num_blocks=1, num_features=8),
    "a2n": lambda: A2N(2, num_features=8, num_blocks=2),
}


def make(name: str) -> SuperResolutionModel:
    """With weights that let every pixel in reach have its part."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_uniform_(parameter, a=1)
    return network


@torch.no_grad()
def make_exact(name: str) -> SuperResolutionModel:
    """With weights by which float32 rounds nothing in black and white pictures.

    A filter is the difference of two opposite corners of its kernel, the farthest that it sees.
    The values are multiples of a power of two, and need fewer than the 24 bits of float32.
    """
    network = NETWORKS[name]().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.zero_()
            module.bias.zero_()
            channels = torch.arange(module.out_channels)
            module.weight[channels, channels % module.in_channels, 0, 0] = 1
            module.weight[channels, (channels + 1) % module.in_channels, -1, -1] = -1
            last = module
        elif isinstance(module, nn.BatchNorm2d):
            module.eps = 0  # else it divides by sqrt(1 + eps)
        elif isinstance(module, nn.PReLU):
            module.weight.fill_(0.5)
    last.weight /= 16  # so that many values are between 0 and 1
    return network


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """A photograph of 200x170 pixels."""
    return read_rgb(sample_pictures(["astronaut.png"])[0]["hr"]["path"])[100:300, 100:270]


@pytest.fixture(scope="module")
def black_and_white(pixels) -> np.ndarray:
    """The same of 16 bits, of which the network gets 0 and 1."""
    return np.where(pixels > 127, 65535, 0).astype(np.uint16)


# Bicubic weights are multiples of 1/128 for x2, and no binary fractions for x3.
@pytest.mark.parametrize("name", ["srcnn", "vdsr", "srgan", "srgan-x3"])
def test_tiles_are_as_the_whole(name, black_and_white, monkeypatch):
    for script in (train_srcnn, train_vdsr):
        # Green for luma, whose weights are no binary fractions.
        monkeypatch.setattr(script, "luma", lambda rgb: rgb[..., 1:2, :, :])
    monkeypatch.setattr(common.inference, "ALIGNMENT", 1)  # which would round up the margin
    network = make_exact(name)
    whole = Enlarger(network, CPU, tile=0)(black_and_white)
    assert whole.shape == (200 * network.scale, 170 * network.scale, 3)
    for tile in (32, 64, 128):
        assert np.array_equal(Enlarger(network, CPU, tile=tile)(black_and_white), whole)
    monkeypatch.setattr(type(network), "margin", network.margin - 1)
    assert not np.array_equal(Enlarger(network, CPU, tile=64)(black_and_white), whole)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "a2n"])
def test_tiles_are_as_the_whole_but_for_rounding(name, pixels):
    network = make(name)
    for picture, share in ((pixels, 1e-4), (pixels.astype(np.uint16) * 257, 1e-2)):
        whole = Enlarger(network, CPU, tile=0)(picture)
        assert_nearly_equal(Enlarger(network, CPU, tile=64)(picture), whole, share)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "a2n"])
def test_the_margin_is_what_the_network_sees(name):
    network = make(name).double()
    margin, scale = network.margin, network.scale
    size = 2 * margin + 40
    lr = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    tile = slice(20 + margin, 20 + margin + 1)  # one pixel of LR
    part = slice(tile.start * scale, tile.stop * scale)
    network(lr)[..., part, part].sum().backward()
    rows = lr.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert tile.start - rows.min() <= margin
    assert rows.max() - tile.start <= margin
    # And not much wider than it must be.
    assert max(tile.start - rows.min(), rows.max() - tile.start) >= margin - 2


def test_a2n_in_tiles(pixels):
    network = make("a2n")
    picture = np.tile(pixels, (2, 2, 1))
    whole = Enlarger(network, CPU, tile=0, attention_window=64)(picture)
    assert_nearly_equal(Enlarger(network, CPU, tile=64)(picture), whole, share=1e-4)
    globally = Enlarger(network, CPU, tile=0)(picture)
    assert np.mean(globally != whole) > 1e-3


@pytest.mark.slow
def test_the_margin_of_a2n(published_a2n, pixels):
    # In float64, whose rounding is far below what is asked for here.
    network = convert(load_file(published_a2n), "a2n", [2]).double()
    network.attention_window = 64
    lr = torch.from_numpy(np.tile(pixels, (3, 3, 1))[:512, :496] / 255).movedim(-1, 0)[None]
    with torch.no_grad():
        whole = network(lr)[..., 448:512, 448:512]
        around = slice(224 - network.margin, 256 + network.margin)
        tile = network(lr[..., around, around])
    inside = slice(2 * network.margin, 2 * network.margin + 64)
    assert (tile[..., inside, inside] - whole).abs().max() * 255 < 2e-4


def test_a_window_as_large_as_the_picture_is_nearly_the_whole(pixels):
    network, lr = make("a2n"), torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        whole = network(lr)
        network.attention_window = 1000
        assert torch.allclose(network(lr), whole, atol=1e-6)


def test_sixteen_bits(pixels):
    network = make("srgan-x3")
    fine = pixels.astype(np.uint16) * 257
    result = Enlarger(network, CPU, tile=0)(fine)
    assert result.dtype == np.uint16
    coarse = Enlarger(network, CPU, tile=0)(pixels)
    assert np.abs(result / 257 - coarse).max() <= 0.5 + 1e-2
    assert len(np.unique(result % 257)) > 200  # it is finer than 8 bits


def test_the_self_ensemble_is_the_mean_over_eight(pixels):
    network = make("srcnn")
    lr = torch.from_numpy(pixels[:30, :20].copy()).movedim(-1, 0)[None] / 255
    ensemble = SelfEnsemble(network)
    with torch.no_grad():
        sr = ensemble(lr)
        expected = [
            back(network(turn(lr)))
            for turn, back in (
                (lambda x: x, lambda x: x),
                (lambda x: x.flip(-1), lambda x: x.flip(-1)),
                (lambda x: x.flip(-2), lambda x: x.flip(-2)),
                (lambda x: x.flip(-1, -2), lambda x: x.flip(-1, -2)),
                (lambda x: x.mT, lambda x: x.mT),
                (lambda x: x.mT.flip(-1), lambda x: x.flip(-1).mT),
                (lambda x: x.mT.flip(-2), lambda x: x.flip(-2).mT),
                (lambda x: x.mT.flip(-1, -2), lambda x: x.flip(-1, -2).mT),
            )
        ]
        assert torch.allclose(sr, torch.stack(expected).mean(dim=0), atol=1e-6)
        assert torch.allclose(ensemble(lr.mT.flip(-1)), sr.mT.flip(-1), atol=1e-6)
        assert not torch.allclose(sr, network(lr), atol=1e-4)


def test_the_self_ensemble_in_tiles(pixels):
    network = make("srgan")
    whole = Enlarger(network, CPU, tile=0, self_ensemble=True)(pixels)
    tiles = Enlarger(network, CPU, tile=64, self_ensemble=True)(pixels)
    assert_nearly_equal(tiles, whole, share=1e-4)  # sums of eight
    assert not np.array_equal(whole, Enlarger(network, CPU, tile=0)(pixels))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")]
)
def test_smaller_tiles_when_the_memory_is_too_small(error, pixels, monkeypatch):
    network, said, done = make("srgan"), [], []
    expected = Enlarger(network, CPU, tile=64)(pixels)
    forward = SRGAN.forward

    def with_little_memory(self, lr):
        if lr.shape[2] * lr.shape[3] > 100 * 100:
            raise error
        return forward(self, lr)

    monkeypatch.setattr(SRGAN, "forward", with_little_memory)
    enlarger = Enlarger(network, CPU, say=said.append)
    assert np.array_equal(enlarger(pixels, done.append), expected)
    assert said == [
        "Out of memory; going on in tiles of 96.",
        "Out of memory; going on in tiles of 64.",
    ]
    assert sum(done) == 200 * 170
    enlarger(pixels)
    assert len(said) == 2
    tries = []

    def without_memory(self, lr):
        tries.append(lr.shape)
        raise type(error)(f"{error} at {len(tries)}")

    monkeypatch.setattr(SRGAN, "forward", without_memory)
    with pytest.raises(type(error), match=r" at 1$"):  # the first error, not the last
        Enlarger(network, CPU, say=said.append)(pixels)
    assert len(tries) == 3


def test_what_was_done_when_the_memory_was_too_small_is_done_again(black_and_white, monkeypatch):
    network, sizes, done = make_exact("srgan"), [], []
    expected = Enlarger(network, CPU, tile=0)(black_and_white)
    forward = SRGAN.forward

    def third_time_without_memory(self, lr):
        sizes.append(lr.shape[2:])
        if len(sizes) == 3:
            raise torch.OutOfMemoryError
        return forward(self, lr)

    monkeypatch.setattr(SRGAN, "forward", third_time_without_memory)
    enlarger = Enlarger(network, CPU, tile=96, say=lambda line: None)
    assert np.array_equal(enlarger(black_and_white, done.append), expected)
    assert done[:3] == [96 * 96, 96 * 74, -96 * 170]
    assert sum(done) == 200 * 170


def test_a_picture_that_fits_stays_whole_after_one_that_did_not(pixels, monkeypatch):
    network, said = make("a2n"), []
    small = pixels[:90, :90]
    expected = Enlarger(network, CPU, tile=0)(small)
    assert not np.array_equal(Enlarger(network, CPU, tile=64)(small), expected)
    forward = A2N.forward

    def with_little_memory(self, lr):
        if lr.shape[2] * lr.shape[3] > 180 * 170:
            raise torch.OutOfMemoryError
        return forward(self, lr)

    monkeypatch.setattr(A2N, "forward", with_little_memory)
    monkeypatch.setattr(A2N, "margin", 32)
    enlarger = Enlarger(network, CPU, say=said.append)
    enlarger(pixels)
    assert said == ["Out of memory; going on in tiles of 96 with --attention_window 64."]
    assert network.attention_window == 0
    assert np.array_equal(enlarger(small), expected)


def test_what_is_no_number_is_no_picture(pixels):
    network = make("srcnn")
    with torch.no_grad():
        next(network.parameters())[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="the network gives values that are no numbers; if"):
        Enlarger(network, CPU)(pixels[:20, :20])


def test_colors_that_nobody_sees_stay_out(pixels):
    network = make("srcnn")
    color = np.empty((40, 40, 3), np.uint8)
    color[:] = 255, 220, 60
    alpha = np.zeros((40, 40), np.uint8)
    alpha[10:30, 10:30] = 200
    hidden = np.where(alpha[..., None] > 0, color, 0).astype(np.uint8)
    enlarger = Enlarger(network, CPU)
    assert np.array_equal(enlarger.enlarge(Picture(hidden, alpha)).pixels, enlarger(color))
    nothing = enlarger.enlarge(Picture(hidden, np.zeros_like(alpha)))
    assert np.array_equal(nothing.pixels, enlarger(hidden))


def test_the_self_ensemble_adds_up_in_float32(pixels):
    lr = torch.rand(1, 3, 20, 20)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert make("srgan")(lr).dtype == torch.bfloat16
        assert SelfEnsemble(make("srgan"))(lr).dtype == torch.float32


def test_what_does_not_go_together():
    with pytest.raises(UserError, match=r"SRCNN does not\. Leave it out"):
        Enlarger(make("srcnn"), CPU, attention_window=64)
    with pytest.raises(UserError, match="--tile 64 with --attention_window 0: a tile does not"):
        Enlarger(make("a2n"), CPU, tile=64, attention_window=0)

    for tile in (-8, 50):
        with pytest.raises(UserError, match=f"--tile {tile} is no multiple of 8"):
            Enlarger(make("srcnn"), CPU, tile=tile)
    for window in (-1, 1000):
        with pytest.raises(UserError, match=f"--attention_window {window} is not from 0 to 64"):
            Enlarger(make("a2n"), CPU, attention_window=window)

    class NoMargin(SuperResolutionModel):
        def __init__(self):
            super().__init__([2])

    with pytest.raises(UserError, match="NoMargin cannot be applied in tiles, since it has no"):
        Enlarger(NoMargin(), CPU, tile=8)(np.zeros((20, 20, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "size", "tile"),
    [
        ("a2n", (1024, 1024), 0),
        ("a2n", (1024, 1025), 1024 - 2 * 128),
        ("srgan", (3000, 4000), 512 - 2 * 16),
        ("srgan-x3", (3000, 4000), 680 - 2 * 16),  # a multiple of 8
    ],
)
def test_the_automatic_tile(name, size, tile):
    assert Enlarger(make(name), CPU).tile_of(*size) == tile
    assert Enlarger(make(name), CPU, tile=0).tile_of(*size) == 0


def test_a_mean_of_the_whole_is_of_the_whole(pixels, monkeypatch):
    monkeypatch.setattr(common.inference, "AUTO_SIDE", 128)
    network = make("a2n")
    assert Enlarger(network, CPU).tile_of(200, 170) == 64
    globally = Enlarger(network, CPU, attention_window=0)
    assert globally.tile_of(200, 170) == 0
    assert np.array_equal(globally(pixels), Enlarger(network, CPU, tile=0)(pixels))


def test_bytes_go_to_the_device_and_come_back(pixels, monkeypatch):
    """The host makes neither floats of them nor bytes of floats."""
    moved, there, back = [], torch.Tensor.to, torch.Tensor.cpu

    def to(tensor, *to, **how):
        if to and isinstance(to[0], torch.device):
            moved.append(tensor.dtype)
        return there(tensor, *to, **how)

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda tensor: moved.append(tensor.dtype) or back(tensor)
    )
    network = make("srgan")  # which moves nothing itself
    result = Enlarger(network, CPU)(pixels[:20, :20])
    assert moved == [torch.uint8, torch.uint8]
    with torch.no_grad():
        lr = torch.from_numpy(pixels[:20, :20].astype(np.float32)).movedim(-1, 0)[None] / 255
        expected = network(lr)[0].mul(255).round().clamp(0, 255).movedim(0, -1)
    assert np.array_equal(result, expected.numpy().astype(np.uint8))


@pytest.mark.parametrize("self_ensemble", [False, True])
def test_pictures_are_enlarged_in_true_float32(self_ensemble, pixels, look, monkeypatch):
    forward = SRCNN.forward
    monkeypatch.setattr(SRCNN, "forward", lambda network, lr: look() or forward(network, lr))
    Enlarger(make("srcnn"), CPU, tile=8, self_ensemble=self_ensemble)(pixels[:12, :8])
    assert look.seen == [("highest", False)] * (16 if self_ensemble else 2)
