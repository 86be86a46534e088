"""Image classifiers whose heatmap is their last layer: load, predict, show, save.

>>> from hub import ImageClassifier
>>> classifier = ImageClassifier.from_pretrained()     # the embedded cat-or-dog model
>>> classifier("photo.jpg")                            # [{"label": "cat", "score": 0.99}, ...]
>>> classifier.predict("photo.jpg").evidence.shape     # (7, 7, 2): mean over the cells == logits
"""

from hub.classifier import ImageClassifier, Prediction
from hub.errors import BundleError, DataError, ImageError, Refusal, StorageError, UsageError

__all__ = [
    "BundleError",
    "DataError",
    "ImageClassifier",
    "ImageError",
    "Prediction",
    "Refusal",
    "StorageError",
    "UsageError",
]
