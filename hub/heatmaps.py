"""From evidence (h, w, K) in logits to pictures: one fixed scale, one colour rule for every photo.

Numbers (sums, means, log-odds) are computed from the cells of a map, never from the enlarged picture.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

# The ends of ColorBrewer's 5-class diverging scheme "RdBu" (Cynthia Brewer, https://colorbrewer2.org), listed
# there as colour-blind safe. A value's sign picks one of them, its size how much it covers.
POSITIVE, NEGATIVE = (202, 0, 32), (5, 113, 176)


def shown_map(evidence: np.ndarray, k: int) -> np.ndarray:
    """Return what speaks for class `k` rather than the others, per cell, in logits.

    A map common to all classes changes no probability, so a difference is shown: with two classes the other
    one's map is taken off (the mean of the result is then the log-odds of `k`), with more the mean of all.

    Args:
        evidence: (..., h, w, K), K >= 2.
        k: the class, 0 <= k < K.

    Returns:
        (..., h, w) float32; positive speaks for class `k`.
    """
    return shown_logit(evidence, k).astype(np.float32)


def shown_logit(logits: np.ndarray, k: int) -> np.ndarray:
    """Return the logit of class `k` less the other's (two classes: the log-odds), or less the mean of all (more).

    Args:
        logits: (..., K), K >= 2.
        k: the class, 0 <= k < K.

    Returns:
        (...) of the same type: the score that `shown_map` spreads over the cells.
    """
    rest = logits[..., 1 - k] if logits.shape[-1] == 2 else logits.mean(axis=-1)
    return logits[..., k] - rest


def grad_cam(evidence: np.ndarray, k: int) -> np.ndarray:
    """Return the Grad-CAM of the logit of class `k` (h, w), times h * w: max(evidence of k, 0).

    Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) weighs each feature map by the logit's
    gradient, averaged over the cells. Here the logit is the mean of a bias-free 1x1 convolution, its gradient
    that convolution's weight / (h * w), and the weighted sum evidence / (h * w): exact, without gradients.
    """
    return np.maximum(evidence[..., k], 0).astype(np.float32)


def fixed_scale(evidence: np.ndarray) -> float:
    """Return the one scale for every photo: the 99th percentile of |shown map| (photos, cells, classes).

    Args:
        evidence: (N, h, w, K) of the validation photos.

    Returns:
        The scale in logits; 1.0 where the percentile is 0 and so nothing would be seen on any scale.
    """
    maps = [np.abs(shown_map(evidence, k)) for k in range(evidence.shape[-1])]
    return float(np.percentile(maps, 99)) or 1.0


def upsample(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a map (h, w) to (height, width), half-pixel bilinear; keeps the mean at integer factors."""
    height, width = size
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def colour(values: np.ndarray, scale: float) -> np.ndarray:
    """Return the uint8 colour (..., 3) of values (...) in logits: -scale is blue, 0 white, +scale red."""
    share = _share(values, scale)
    return np.rint(255 + np.abs(share)[..., None] * (_covers(share) - 255)).astype(np.uint8)


def overlay(image: Image.Image, values: np.ndarray, scale: float, opacity: float, signed: bool = True) -> Image.Image:
    """Lay a map over a photo: it covers opacity * |value| / scale of it, so neutral cells leave it visible.

    Args:
        image: the RGB photo, any size.
        values: (h, w) in logits, from `shown_map` (signed) or `grad_cam` (not signed).
        scale: the value in logits at which the colour is full; beyond it nothing changes.
        opacity: 0 (photo only) to 1 (the strongest cells hide the photo).
        signed: False shows only what is positive.
    """
    _check_scale(scale)
    full = 255 * opacity
    # Before it is enlarged the map is small, and enlarging is linear; only where to stop is known afterwards.
    cells = np.asarray(values if signed else np.maximum(values, 0), np.float32) * np.float32(full / scale)
    cover = upsample(cells, (image.height, image.width))
    shown = image.copy() if image.mode == "RGB" else image.convert("RGB")
    # Pillow lays a colour on through a mask several times as fast as NumPy mixes three bands, to within 1 of 255.
    for rgb, side in ((POSITIVE, cover), (NEGATIVE, -cover)):
        mask = (np.clip(side, 0, full) + np.float32(0.5)).astype(np.uint8)
        if mask.any():
            shown.paste(Image.new("RGB", shown.size, rgb), mask=Image.fromarray(mask))
    return shown


def layer(values: np.ndarray, size: tuple[int, int], scale: float, signed: bool = True) -> Image.Image:
    """Return a map as an RGBA picture (height, width); over a photo at some opacity it looks as `overlay` draws it.

    Each pixel has the colour of its sign, and covers by |value| / scale; so opacity can be chosen where it is shown.

    Args:
        values: (h, w) in logits, as for `overlay`.
        size: (height, width) in pixels.
        scale: the value in logits at which the colour is full.
        signed: False shows only what is positive.
    """
    share = _share(upsample(values if signed else np.maximum(values, 0), size), scale)
    cover = np.rint(255 * np.abs(share))[..., None]
    return Image.fromarray(np.concatenate([_covers(share), cover], axis=-1).astype(np.uint8), "RGBA")


def _share(values: np.ndarray, scale: float) -> np.ndarray:
    """Return values as shares of the scale, -1 to 1."""
    _check_scale(scale)
    return np.clip(np.asarray(values, dtype=np.float32) / np.float32(scale), -1, 1)


def _covers(share: np.ndarray) -> np.ndarray:
    """Return the colour (..., 3) that a share's sign chooses."""
    return np.where(share[..., None] > 0, np.array(POSITIVE, np.float32), np.array(NEGATIVE, np.float32))


def _check_scale(scale: float) -> None:
    if not scale > 0:
        raise ValueError(f"The scale {scale} is not positive; use the model's evidence_scale.")
