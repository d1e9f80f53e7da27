"""Pictures in memory, as other programs have them: arrays of NumPy and images of Pillow."""

import numpy as np
from PIL import Image

from common.images.formats import Picture

TYPES = (np.uint8, np.uint16, np.float16, np.float32, np.float64)


def maximum_of(dtype: np.dtype) -> int:
    """The value of white: 255, 65535, or 1 for floats."""
    return np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1


def to_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats in the range of a type as that type, clipped, and rounded if it is a whole one."""
    values = values.clip(0, maximum_of(dtype))
    return (values.round() if np.issubdtype(dtype, np.integer) else values).astype(dtype)


def to_picture(given: np.ndarray | Image.Image) -> Picture:
    """Takes a picture that is in memory.

    Args:
        given: Array (h, w) or (h, w, c) of gray, gray and opacity, RGB, or RGB and opacity: uint8,
            uint16, or floats in [0, 1]. Or an image of Pillow, as it is: EXIF does not turn it.

    Raises:
        TypeError: It is something else.
        ValueError: Its shape or its values are not those of a picture.
    """
    if isinstance(given, Image.Image):
        return _of_image(given)
    if not isinstance(given, np.ndarray):
        raise TypeError(
            f"a picture is a NumPy array or an image of Pillow, not {type(given).__name__}; read "
            "a file by common.images.formats.read_picture, and give a tensor to the network itself"
        )
    if given.dtype not in TYPES:
        raise TypeError(
            f"an array of {given.dtype} may mean anything; convert it to uint8 (0 to 255), uint16 "
            "(0 to 65535), or floats in [0, 1]"
        )
    array = given[..., None] if given.ndim == 2 else given
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"an array of shape {given.shape} is no picture; give (height, width), or (height, "
            "width, channels) with 1 to 4 channels at the end"
        )
    if np.issubdtype(array.dtype, np.floating):
        least, most = array.min(), array.max()
        if not (least >= 0 and most <= 1):  # nor if one is no number
            raise ValueError(
                f"floats from {least:g} to {most:g} are no picture; they must be in [0, 1]. Divide "
                "by the value of white, and clip"
            )
    if array.shape[2] in (2, 4):
        return Picture(array[..., :-1], array[..., -1])
    return Picture(array)


def _of_image(image: Image.Image) -> Picture:
    if image.mode.startswith("I;16"):
        return Picture(np.array(image).astype(np.uint16)[..., None])
    if image.mode in ("I", "F"):
        raise ValueError(
            f"an image of mode {image.mode} has 32 bits a channel, and nobody knows its white; "
            "give it as an array of uint16, or of floats in [0, 1]"
        )
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    mode += "A" if image.has_transparency_data else ""
    array = np.array(image.convert(mode))
    profile = None if image.mode in ("CMYK", "LAB") else image.info.get("icc_profile")
    return to_picture(array)._replace(icc_profile=profile)


def as_given(picture: Picture, given: np.ndarray | Image.Image) -> np.ndarray | Image.Image:
    """A picture as an array or image of the kind that another one was given as."""
    parts = [picture.pixels, *([] if picture.alpha is None else [picture.alpha[..., None]])]
    array = np.concatenate(parts, axis=2)
    if isinstance(given, Image.Image):
        image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        if picture.icc_profile:
            image.info["icc_profile"] = picture.icc_profile
        return image
    return array[..., 0] if given.ndim == 2 else array
