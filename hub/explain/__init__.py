"""Explanations of one answer, one file a kind: the evidence itself, and what others would draw in its place.

>>> from hub import ImageClassifier
>>> from hub.explain import find_method
>>> from hub.images import to_tensor
>>> classifier = ImageClassifier.from_pretrained()
>>> photo = to_tensor("photo.jpg", classifier.image_size)
>>> find_method("occlusion")(classifier, photo, classifier.labels.index("dog")).values.shape
(14, 14)

To add one: subclass `Method` (or `Cam`, for a sum of feature maps) in a file here and name it below.
"""

from hub.classifier import ImageClassifier
from hub.errors import lookup
from hub.explain.base import Cam, Evidence, Explanation, Method
from hub.explain.gradients import GradCam, GradCamPlusPlus, LayerCam
from hub.explain.masks import Occlusion, ScoreCam

METHODS: dict[str, Method] = {
    method.name: method
    for method in (Evidence(), GradCam(), Occlusion(), ScoreCam(), GradCamPlusPlus(), LayerCam())
}  # fmt: skip


def find_method(name: str) -> Method:
    """Return the method of that name.

    Raises:
        UsageError: there is none; the sentence names the nearest.
    """
    return lookup(name, METHODS, "method")


def best_for(classifier: ImageClassifier) -> Method:
    """Return the method to begin with: the evidence where the head keeps it, else Grad-CAM, else occlusion.

    Grad-CAM costs least of the others, but it wants Keras; occlusion runs wherever the model does.
    """
    candidates = (METHODS[name] for name in ("evidence", "grad-cam", "occlusion"))
    return next(method for method in candidates if method.lacks(classifier) is None)


__all__ = ["METHODS", "Cam", "Explanation", "Method", "best_for", "find_method"]
