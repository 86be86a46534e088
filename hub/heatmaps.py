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
    rest = evidence[..., 1 - k] if evidence.shape[-1] == 2 else evidence.mean(axis=-1)
    return (evidence[..., k] - rest).astype(np.float32)


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
    return _blend(np.full((*np.shape(values), 3), 255, np.uint8), values, scale, 1.0)


def overlay(image: Image.Image, values: np.ndarray, scale: float, opacity: float, signed: bool = True) -> Image.Image:
    """Lay a map over a photo: it covers opacity * |value| / scale of it, so neutral cells leave it visible.

    Args:
        image: the RGB photo, any size.
        values: (h, w) in logits, from `shown_map` (signed) or `grad_cam` (not signed).
        scale: the value in logits at which the colour is full; beyond it nothing changes.
        opacity: 0 (photo only) to 1 (the strongest cells hide the photo).
        signed: False shows only what is positive.
    """
    enlarged = upsample(values if signed else np.maximum(values, 0), (image.height, image.width))
    return Image.fromarray(_blend(np.asarray(image.convert("RGB")), enlarged, scale, opacity))


def _blend(under: np.ndarray, values: np.ndarray, scale: float, opacity: float) -> np.ndarray:
    """The one colour rule: values (...) in logits over uint8 colours (..., 3), clipped at the scale."""
    if not scale > 0:
        raise ValueError(f"The scale {scale} is not positive; use the model's evidence_scale.")
    share = np.clip(np.asarray(values, dtype=np.float32) / np.float32(scale), -1, 1)[..., None]
    cover = np.where(share > 0, np.float32(POSITIVE), np.float32(NEGATIVE))
    return np.rint(under + np.float32(opacity) * np.abs(share) * (cover - under)).astype(np.uint8)
