"""Backbones of keras.applications under the evidence head; each gets pixels of 0-255 and scales them itself."""

import keras
import numpy as np

from hub.errors import DataError, first_line
from training.networks.networks import evidence_head

# How each family wants its input, as keras.io/api/applications says.
TO_ONE = ("MobileNet", "MobileNetV2", "InceptionV3", "Xception", "ResNet50V2", "ResNet101V2", "ResNet152V2")
BGR = ("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19")  # as Caffe: BGR less ImageNet's mean
STANDARDISED = ("DenseNet121", "DenseNet169", "DenseNet201")  # as Torch: less the mean, by the deviation
AS_THEY_ARE = (  # their first layers scale
    *(f"EfficientNetB{n}" for n in range(8)), *(f"EfficientNetV2{n}" for n in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    "MobileNetV3Small", "MobileNetV3Large",
)  # fmt: skip
# Not InceptionResNetV2 and ConvNeXt: they have layers of their own, which other versions of Keras need not load.
BACKBONES = (*TO_ONE, *BGR, *STANDARDISED, *AS_THEY_ARE)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB, in 0-1
BGR_MEAN = (103.939, 116.779, 123.68)  # in 0-255


def evidence_model(backbone: str, weights: str, size: int, labels: int, dropout: float = 0.0) -> keras.Model:
    """A `keras.applications` backbone under the evidence head, made of stock Keras layers only.

    The head is the usual global average pooling and dense layer with the two (linear) steps swapped, so
    the mean over the evidence map *is* the logit. Zhou et al., https://arxiv.org/abs/1512.04150

    Args:
        backbone: one of BACKBONES.
        weights: "imagenet", "random", or the path of a weights file.
        size: side of the input in pixels.
        labels: K, the number of labels.
        dropout: share of the features that is left out in training.

    Returns:
        A model from float (N, size, size, 3) in 0-255 to {"logits": (N, K), "evidence": (N, h, w, K)}.

    Raises:
        DataError: no such backbone, or a weights file that does not fit it.
    """
    if backbone not in BACKBONES:
        raise DataError(f"{backbone!r} is not a known backbone; choose from {', '.join(BACKBONES)}.")
    build = getattr(keras.applications, backbone)
    image = keras.Input((size, size, 3), name="image")
    try:
        body = build(
            include_top=False, weights=None if weights == "random" else weights, input_tensor=_scaled(image, backbone)
        )
    except Exception as error:  # a missing file, a refused download, other layers: each its own type
        raise DataError(f"{backbone} cannot take the weights {weights!r}: {first_line(error)}.") from error
    return keras.Model(image, evidence_head(body.output, labels, dropout), name=f"{body.name}_evidence")


def _scaled(image: keras.KerasTensor, backbone: str) -> keras.KerasTensor:
    """The picture as the backbone's ImageNet weights want it."""
    if backbone in TO_ONE:
        return keras.layers.Rescaling(1 / 127.5, offset=-1, name="to_minus_one_plus_one")(image)
    if backbone in STANDARDISED:
        scale = [1 / 255 / deviation for deviation in DEVIATION]
        offset = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
        return keras.layers.Rescaling(scale, offset, name="standardised")(image)
    if backbone in BGR:
        # Stock layers cannot turn channels round, but a fixed convolution of one pixel can, and takes the mean off.
        turn = keras.layers.Conv2D(3, 1, trainable=False, name="to_bgr_less_mean")
        turned = turn(image)
        turn.set_weights([np.eye(3, dtype=np.float32)[::-1][None, None], -np.array(BGR_MEAN, np.float32)])
        return turned
    return image


def features_model(model: keras.Model) -> keras.Model:
    """The network up to the head, pooled: (N, size, size, 3) to (N, C)."""
    features = model.get_layer("evidence").input
    return keras.Model(model.input, keras.layers.GlobalAveragePooling2D()(features))


def freeze_batch_norm(model: keras.Model) -> None:
    """Keep batch normalisation in inference mode, statistics and scale as they were learned.

    Batches of 32 of a new data set would shift statistics gathered over ImageNet; and a frozen layer costs
    one multiplication and one addition a value, where a live one takes more time than the convolutions.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def freeze(model: keras.Model, up_to: float | str | None) -> None:
    """Let the first layers keep their weights in training.

    Args:
        up_to: a share of the backbone's layers (0.5 freezes the first half, 1 all of them), the name of the last
            layer that is frozen, or None for none.

    Raises:
        DataError: no layer has that name; some that do are named.
    """
    if up_to is None:
        return
    layers = [layer for layer in model.layers if layer.name not in ("evidence", "logits")]
    names = [layer.name for layer in layers]
    if isinstance(up_to, str) and up_to not in names:
        some = ", ".join(names[:: max(1, len(names) // 12)])
        raise DataError(f"The backbone has no layer {up_to!r} to freeze up to; among its layers are {some}.")
    count = names.index(up_to) + 1 if isinstance(up_to, str) else round(up_to * len(layers))
    for layer in layers[:count]:
        layer.trainable = False
