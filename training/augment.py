"""Random views of a training photo, drawn with Pillow so that every Keras backend sees the same pixels."""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a photo; every amount is drawn uniformly, every default does nothing.

    Attributes:
        crop_area: smallest share of the photo's area that is kept (zoom and shift in one).
        aspect: the crop's sides may differ by up to this factor.
        flip: mirror half of the photos.
        rotation: degrees, either way.
        brightness, contrast, saturation: factors between 1 - amount and 1 + amount.
        sharpness: blurs down to or sharpens up to a factor of 1 ± amount, for half of the photos.
        jpeg: lowest JPEG quality, for a third of the photos; 0 leaves it out.
    """

    crop_area: float = 1.0
    aspect: float = 1.0
    flip: bool = False
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    sharpness: float = 0.0
    jpeg: int = 0

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """One view of `pixels` (uint8, (size, size, 3)), of the same shape."""
        draw = random.uniform(-1, 1, 9)  # drawn at once, so that one knob does not reshuffle the others
        chance = random.uniform(0, 1, 3)
        image = Image.fromarray(pixels)
        image = image.transform(
            image.size, Image.Transform.AFFINE, self._affine(draw, chance[0], image.width),
            Image.Resampling.BILINEAR, fillcolor=tuple(int(v) for v in pixels.mean((0, 1))),
        )  # fmt: skip
        for enhance, amount, d in (
            (ImageEnhance.Brightness, self.brightness, draw[4]),
            (ImageEnhance.Contrast, self.contrast, draw[5]),
            (ImageEnhance.Color, self.saturation, draw[6]),
            (ImageEnhance.Sharpness, self.sharpness if chance[1] < 0.5 else 0.0, draw[7]),
        ):
            if amount:
                image = enhance(image).enhance(1 + amount * d)
        if self.jpeg and chance[2] < 1 / 3:
            encoded = io.BytesIO()
            image.save(encoded, "JPEG", quality=int(self.jpeg + (95 - self.jpeg) * 3 * chance[2]))
            image = Image.open(encoded)
        return np.asarray(image)

    def _affine(self, draw: np.ndarray, flip: float, size: int) -> tuple[float, ...]:
        """Pillow's six numbers from output to input pixels: crop, aspect, mirror and rotation in one step."""
        area = self.crop_area + (1 - self.crop_area) * (draw[0] + 1) / 2
        ratio = self.aspect ** (draw[1] / 2)
        width, height = min(1.0, math.sqrt(area) * ratio), min(1.0, math.sqrt(area) / ratio)
        centre_x = size * (0.5 + draw[2] * (1 - width) / 2)
        centre_y = size * (0.5 + draw[3] * (1 - height) / 2)
        mirror = -1.0 if self.flip and flip < 0.5 else 1.0
        angle = math.radians(self.rotation * draw[8])
        cos, sin = math.cos(angle), math.sin(angle)
        a, b = width * mirror * cos, -height * sin
        d, e = width * mirror * sin, height * cos
        half = size / 2
        return a, b, centre_x - (a + b) * half, d, e, centre_y - (d + e) * half
