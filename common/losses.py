"""Losses that PyTorch does not have."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from common.errors import UserError

WINDOW = 11  # of SSIM
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM, from full size to a 16th


def charbonnier(sr: Tensor, hr: Tensor, eps: float = 1e-3) -> Tensor:
    """Mean of sqrt((sr - hr)^2 + eps^2) over all elements, a smooth L1.

    Lai et al. 2017, LapSRN, eq. 4.

    Args:
        sr: Any shape and range.
        hr: Same shape and range.
        eps: Errors well below it count as squares, errors above it as absolute values. Code that
            adds 1e-6 to the square, as many do, has eps = 1e-3.

    Returns:
        A scalar, never below eps.
    """
    return ((sr - hr).square() + eps**2).sqrt().mean()


def euclidean(sr: Tensor, hr: Tensor) -> Tensor:
    """Half the squared error of an image, summed over its pixels; mean over the images.

    Caffe's EuclideanLoss: the squared error in the unit for which SRCNN and VDSR give their
    learning rates, weight decay and gradient clipping. With the mean over the pixels instead, the
    same rates would be a thousand times too small.

    Args:
        sr: Shape (N, C, H, W), any range.
        hr: Same shape and range.

    Returns:
        A scalar.
    """
    return (sr - hr).square().sum() / (2 * len(sr))


def frequency(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean absolute difference of the real and imaginary parts of the Fourier transforms.

    Cho et al. 2021, MIMO-UNet, eq. 4, but for the orthonormal transform, by which the loss does not
    grow with the size of the patches: their factor 0.1 is 0.1 * sqrt(H * W) here.

    Args:
        sr: Shape (N, C, H, W), any range.
        hr: Same shape and range.

    Returns:
        A scalar.
    """
    spectrum = torch.fft.rfft2((sr - hr).float(), norm="ortho")
    return torch.view_as_real(spectrum).abs().mean()


def ms_ssim(sr: Tensor, hr: Tensor) -> Tensor:
    """1 - MS-SSIM: the products of contrasts and structures over halved sizes, mean over images.

    Wang, Simoncelli, Bovik 2003, eq. 7, with their five weights. Patches of less than 176 pixels
    have fewer sizes that the window of 11x11 fits into, whose weights are then made to sum to 1.

    Args:
        sr: Range [0, 1], shape (N, C, H, W), no side below 11.
        hr: Same shape and range.

    Returns:
        A scalar, 0 for equal images.
    """
    sr, hr = sr.float(), hr.float()
    sizes = sum(min(hr.shape[-2:]) >> halvings >= WINDOW for halvings in range(len(SCALE_WEIGHTS)))
    weights = SCALE_WEIGHTS[:sizes]
    offsets = torch.arange(WINDOW, device=hr.device) - WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    kernel = (window / window.sum()).expand(5 * hr.shape[1], 1, 1, WINDOW)
    product = torch.ones(len(hr), device=hr.device)
    for size, weight in enumerate(weights):
        if size:
            sr, hr = F.avg_pool2d(sr, 2), F.avg_pool2d(hr, 2)
        maps = torch.cat([sr, hr, sr * sr, hr * hr, sr * hr], dim=1)
        for direction in (kernel, kernel.transpose(2, 3)):
            maps = F.conv2d(maps, direction, groups=len(kernel))
        mean_sr, mean_hr, sr_sr, hr_hr, sr_hr = maps.chunk(5, dim=1)
        variances = sr_sr - mean_sr**2 + hr_hr - mean_hr**2
        similarity = (2 * (sr_hr - mean_sr * mean_hr) + 0.03**2) / (variances + 0.03**2)
        if size == sizes - 1:  # luminance counts at the smallest size alone
            squares = mean_sr**2 + mean_hr**2
            similarity = similarity * (2 * mean_sr * mean_hr + 0.01**2) / (squares + 0.01**2)
        # At 0 the power has no finite gradient.
        mean = similarity.mean(dim=(1, 2, 3)).clamp(min=1e-6)
        product = product * mean ** (weight / sum(weights))
    return 1 - product.mean()


def total_variation(sr: Tensor) -> Tensor:
    """Twice the mean squared difference of neighbors, below each other plus beside each other.

    Args:
        sr: Shape (N, C, H, W), any range.

    Returns:
        A scalar.
    """
    down = sr[..., 1:, :] - sr[..., :-1, :]
    right = sr[..., :, 1:] - sr[..., :, :-1]
    return 2 * (down.square().mean() + right.square().mean())


def adversarial(logits: Tensor, is_hr: bool, kind: str) -> Tensor:
    """GAN loss: distance of the discriminator's output from a target label.

    The target is the true label for the discriminator, "HR" for the generator.

    Args:
        logits: Output of the discriminator, any shape.
        is_hr: Target: whether the images should be taken for HR.
        kind: "vanilla", -log D(x) or -log(1 - D(x)) (Ledig et al. 2017, eqs. 2 and 6);
            "least_squares", (1 - D(x))^2 or D(x)^2 (Mao et al. 2017, LSGAN); "linear", 1 - D(x) or
            D(x).

    Returns:
        Scalar, the mean over all elements.
    """
    target = torch.full_like(logits, float(is_hr))
    if kind == "vanilla":
        return F.binary_cross_entropy_with_logits(logits, target)
    difference = F.mse_loss if kind == "least_squares" else F.l1_loss
    return difference(probability_of_hr(logits, kind), target)


def probability_of_hr(logits: Tensor, kind: str) -> Tensor:
    """D(x): 1 for HR, 0 for SR.

    Args:
        logits: Output of the discriminator, any shape.
        kind: Kind of `adversarial` loss. Least squares use the logits as they are, so D(x) may
            leave [0, 1]; the others use the probability sigmoid(logits).
    """
    return logits if kind == "least_squares" else logits.sigmoid()


class VGGContent(nn.Module):
    """Content loss: mean squared difference of the VGG features of two images.

    Ledig et al. 2017, eq. 5. The network is frozen.

    Args:
        network: "vgg16" or "vgg19".
        layer: "conv5_4" before the activation, "relu5_4" after it, "pool5" after the pooling: the
            fourth convolution of the fifth block.
        weights: File with the state dict of torchvision's network, `.safetensors` or `.pth`.
            Default: torchvision's weights, trained on ImageNet, downloaded once.
        feature_scale: Factor of the features, the paper's 1 / 12.75.

    Attributes:
        min_size: Side of the smallest images that leave at least one pixel in that layer.

    Raises:
        UserError: There are no such weights, or no such layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: str = "vgg19",
        layer: str = "relu5_4",
        weights: Path | None = None,
        feature_scale: float = 1 / 12.75,
    ) -> None:
        import torchvision  # takes a second, which only SRGAN needs to wait

        super().__init__()
        with torch.device("meta"):  # the weights come below
            features = torchvision.models.get_model(network, weights=None).features
        names = _vgg_layers(features)
        if layer not in names:
            raise UserError(f"{network} has no layer {layer}. It has {', '.join(names)}.")
        tensors = _vgg_weights(network, weights)
        try:
            features.load_state_dict(
                {name: tensors[f"features.{name}"].float() for name in features.state_dict()},
                assign=True,
            )
        except KeyError as error:
            raise UserError(
                f"{weights} does not hold the weights of {network}: it lacks {error}."
            ) from None
        except (AttributeError, RuntimeError, TypeError) as error:
            raise UserError(f"{weights} does not hold the weights of {network}: {error}") from None
        self.layer = layer
        self.features = features[: names.index(layer) + 1]
        self.min_size = 2 ** sum(isinstance(module, nn.MaxPool2d) for module in self.features)
        self.feature_scale = feature_scale
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        self.eval().requires_grad_(False)

    def check_patch_size(self, patch_size: int) -> None:
        """Checks that the layer sees something of a patch.

        Raises:
            UserError: The patch is too small.
        """
        if patch_size < self.min_size:
            raise UserError(
                f"--patch_size {patch_size} leaves nothing in --content_layer {self.layer}, which "
                f"needs {self.min_size}. Give larger patches."
            )

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """RGB in [0, 1], (N, 3, H, W) twice -> a scalar."""
        with torch.no_grad():
            target = self.features((hr - self.mean) / self.std)
        found = self.features((sr - self.mean) / self.std)
        return F.mse_loss(found.float() * self.feature_scale, target.float() * self.feature_scale)


def _vgg_layers(features: nn.Sequential) -> list[str]:
    """Names of the layers in their order: conv1_1, relu1_1, ..., pool5."""
    names, block, number = [], 1, 0
    for module in features:
        if isinstance(module, nn.MaxPool2d):
            names.append(f"pool{block}")
            block, number = block + 1, 0
            continue
        is_convolution = isinstance(module, nn.Conv2d)
        number += is_convolution
        names.append(f"{'conv' if is_convolution else 'relu'}{block}_{number}")
    return names


def _vgg_weights(network: str, file: Path | None) -> dict[str, Tensor]:
    ways_out = (
        "Give the file of torchvision's state dict by --vgg_weights, or train without content loss "
        "by --content_weight 0."
    )
    try:
        if file is None:
            import torchvision

            return torchvision.models.get_model_weights(network).DEFAULT.get_state_dict(
                check_hash=True
            )
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # errors of many kinds: download, file, unpickling
        source = f"--vgg_weights {file}" if file else f"The weights of {network} from torchvision"
        raise UserError(f"{source} cannot be had: {error}. {ways_out}") from None
