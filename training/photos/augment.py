"""Random views of a training photo, drawn with Pillow so that every Keras backend sees the same pixels."""

import io
import math
from dataclasses import fields, make_dataclass, replace

import numpy as np
from PIL import Image, ImageEnhance

from training.settings import AUGMENTATION

_Knobs = make_dataclass(
    "_Knobs", [(name, type(knob.default), knob.default) for name, knob in AUGMENTATION.items()], frozen=True
)


class Augmentation(_Knobs):
    """What may happen to a photo; every amount is drawn uniformly, every default does nothing.

    Its attributes are the knobs of `training.settings.AUGMENTATION`, which says what each does and may be.
    """

    @classmethod
    def of(cls, settings: dict) -> "Augmentation":
        """What a recipe's settings ask for."""
        return cls(**{field.name: settings[field.name] for field in fields(cls)})

    def does_nothing(self) -> bool:
        """Whether every view is the photo itself."""
        return replace(self, fill="mean") == Augmentation()

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """One view of `pixels` (uint8, (size, size, 3)), of the same shape."""
        draw = random.uniform(-1, 1, 9)  # drawn at once, so that one knob does not reshuffle the others
        chance = random.uniform(0, 1, 3)
        more = random.uniform(-1, 1, 6)
        image = self._moved(pixels, draw, chance[0], more)
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
        return self._erased(np.asarray(image), more[4:]) if self.erase else np.asarray(image)

    def _moved(self, pixels: np.ndarray, draw: np.ndarray, flip: float, more: np.ndarray) -> Image.Image:
        """Crop, zoom, shift, shear, mirror and rotation in one step."""
        size = pixels.shape[0]
        numbers = self._affine(draw, flip, size, more)
        outside = None
        if self.fill in ("nearest", "reflect"):
            margin = size // 2 + round(size * self.shift)
            mode = {"nearest": "edge", "reflect": "reflect"}[self.fill]
            pixels = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode)
            a, b, c, d, e, f = numbers
            numbers = a, b, c + margin, d, e, f + margin
        else:
            outside = self._colour(pixels)
        image = Image.fromarray(pixels)
        return image.transform(
            (size, size), Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR, fillcolor=outside
        )

    def _colour(self, pixels: np.ndarray) -> tuple[int, ...]:
        return (0, 0, 0) if self.fill == "black" else tuple(int(v) for v in pixels.mean((0, 1)))

    def _erased(self, pixels: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """The picture with a square of one colour on it."""
        size = len(pixels)
        half = self.erase * size / 2
        (top, bottom), (left, right) = (
            (max(0, round(c - half)), max(0, round(c + half))) for c in size * (centre + 1) / 2
        )
        erased = pixels.copy()
        erased[top:bottom, left:right] = self._colour(pixels)
        return erased

    def _affine(self, draw: np.ndarray, flip: float, size: int, more: np.ndarray) -> tuple[float, ...]:
        """Pillow's six numbers from output to input pixels."""
        area = self.crop_area + (1 - self.crop_area) * (draw[0] + 1) / 2
        ratio = self.aspect ** (draw[1] / 2)
        width, height = min(1.0, math.sqrt(area) * ratio), min(1.0, math.sqrt(area) / ratio)
        centre_x = size * (0.5 + draw[2] * (1 - width) / 2)
        centre_y = size * (0.5 + draw[3] * (1 - height) / 2)
        mirror = -1.0 if self.flip and flip < 0.5 else 1.0
        angle, slant = math.radians(self.rotation * draw[8]), math.tan(math.radians(self.shear * more[3]))
        cos, sin = math.cos(angle), math.sin(angle)
        larger = 1 + self.zoom * more[2]
        width, height = width / larger, height / larger
        a, b = width * mirror * cos, height * (mirror * cos * slant - sin)
        d, e = width * mirror * sin, height * (mirror * sin * slant + cos)
        centre_x, centre_y = centre_x - size * self.shift * more[0], centre_y - size * self.shift * more[1]
        if (abs(a), b, d, e) == (1, 0, 0, 1):  # only moved: by whole pixels, which blurs nothing
            centre_x, centre_y = size / 2 + round(centre_x - size / 2), size / 2 + round(centre_y - size / 2)
        half = size / 2
        return a, b, centre_x - (a + b) * half, d, e, centre_y - (d + e) * half
