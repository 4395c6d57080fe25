"""What a model takes: its input tensors, and how images become one, as `prepare` was told or an exporter has left it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from gradscore.errors import InputError, ModelError

PREPROCESSING_KEY = "gradscore.preprocessing"  # the key under which an exporter leaves it in a classifier
_IMAGE_CHANNELS = (1, 3, 4)

Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]


@dataclass(frozen=True)
class InputTensor:
    """One input of the model. An extent of None may vary; the first axis is the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Preprocessing:
    """How uint8 pixels become the model's input: x = (pixel · scale − mean) / std, per channel.

    Attributes
    ----------
    kind
        "image" for inputs [B, C, H, W]; "array" for any other input, which is taken as it is.
    color
        "strict": an image with another number of channels is an error row; "convert": Pillow converts it.
    resize, crop
        How an image of any size gets the model's size in pixels. `resize` is (), the shorter side, or height and width.
        Without a crop every image is stretched to the model's size. "center" cuts the model's size out of the resized
        image.
    interpolation
        The filter for resizing, antialiased as in Pillow and torchvision.
    """

    kind: Literal["image", "array"] = "array"
    channels: int = 0
    height: int = 0
    width: int = 0
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    color: Literal["strict", "convert"] = "strict"
    resize: tuple[int, ...] = ()
    crop: Literal["none", "center"] = "none"
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True)
class ImageOptions:
    """The part of `Preprocessing` that does not follow from the model's shape; the fields are the same."""

    scale: float = 1 / 255
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    color: str = "strict"
    resize: Sequence[int] = ()
    crop: str = "none"
    interpolation: str = "bilinear"

    def changed(self, **given: Any) -> "ImageOptions":
        """Return the options with changes; None leaves an option as it is."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def to_json(self) -> str:
        """Serialise to the text that an exporter leaves under `PREPROCESSING_KEY`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> "ImageOptions":
        """Read the options that an exporter left in a classifier's metadata; defaults if it left none.

        Raises
        ------
        ModelError
            The options cannot be read.
        """
        try:
            return cls(**json.loads(properties.get(PREPROCESSING_KEY, "{}")))
        except (TypeError, ValueError) as error:
            raise ModelError(f"the model's {PREPROCESSING_KEY} cannot be read ({error}): export it again") from error

    def of_model(self, inputs: Sequence[InputTensor]) -> Preprocessing:
        """Return the preprocessing of a model with these inputs: that of images if its only input is a batch of images.

        Raises
        ------
        InputError
            An option has a value that does not exist, or does not fit the model's input.
        """
        for flag, value, known in (
            ("--color", self.color, ("strict", "convert")), ("--crop", self.crop, ("none", "center")),
            ("--interpolation", self.interpolation, get_args(Interpolation)),
        ):  # fmt: skip
            if value not in known:
                raise InputError(f"{flag} is {value!r}: it takes {', '.join(known)}")
        shape = inputs[0].shape
        is_float = len(inputs) == 1 and inputs[0].dtype.startswith("float")
        if not is_float or len(shape) != 4 or shape[1] not in _IMAGE_CHANNELS or shape[2] is None or shape[3] is None:
            return Preprocessing()
        self._check_numbers(shape[1])
        self._check_sizes(shape[2], shape[3])
        fields = asdict(self) | {"mean": tuple(map(float, self.mean)), "std": tuple(map(float, self.std))}
        return Preprocessing("image", shape[1], shape[2], shape[3], **fields | {"resize": tuple(self.resize)})

    def _check_numbers(self, channels: int) -> None:
        for flag, values in (("--mean", self.mean), ("--std", self.std)):
            if len(values) not in (1, channels):
                raise InputError(
                    f"{flag} has {len(values)} numbers for {channels} channels: give one, or one per channel"
                )
        if not all(math.isfinite(number) and number > 0 for number in (self.scale, *self.std)):
            raise InputError(f"--scale is {self.scale} and --std {list(self.std)}: they must be positive numbers")
        if not all(map(math.isfinite, self.mean)):
            raise InputError(f"--mean is {list(self.mean)}: it must be finite")

    def _check_sizes(self, height: int, width: int) -> None:
        wanted, given = f"{height}x{width}", "x".join(map(str, self.resize))
        if len(self.resize) > 2 or not all(extent > 0 for extent in self.resize):
            raise InputError(f"--resize is {given}: give the shorter side, such as 256, or height and width, {wanted}")
        if self.crop == "none" and self.resize and tuple(self.resize) != (height, width):
            raise InputError(f"--resize {given} does not make the model's {wanted}: add --crop center, or leave it out")
        if self.crop == "center" and self.resize and not _covers(self.resize, height, width):
            raise InputError(f"--resize {given} is less than the model's {wanted}, which --crop center cuts out")


def _covers(resize: Sequence[int], height: int, width: int) -> bool:
    return resize[0] >= height and resize[-1] >= width
