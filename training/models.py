"""Networks whose last layer is the heatmap: backbone, 1×1 convolution to the labels, mean."""

import keras

from hub.errors import DataError

# Backbones whose input is scaled to [-1, 1] and that do not scale it themselves (keras.io/api/applications).
SCALED_TO_ONE = ("MobileNet", "MobileNetV2", "InceptionV3", "InceptionResNetV2", "Xception", "ResNet50V2",
                 "ResNet101V2", "ResNet152V2", "NASNetMobile", "NASNetLarge")  # fmt: skip


def evidence_model(backbone: str, weights: str, size: int, labels: int) -> keras.Model:
    """A `keras.applications` backbone under the evidence head, made of stock Keras layers only.

    The head is the usual global average pooling and dense layer with the two (linear) steps swapped, so
    the mean over the evidence map *is* the logit. Zhou et al., https://arxiv.org/abs/1512.04150

    Args:
        backbone: one of SCALED_TO_ONE.
        weights: "imagenet", "random", or the path of a weights file.
        size: side of the input in pixels.
        labels: K, the number of labels.

    Returns:
        A model from float (N, size, size, 3) in 0-255 to {"logits": (N, K), "evidence": (N, h, w, K)}.

    Raises:
        DataError: no such backbone, or a weights file that does not fit it.
    """
    if backbone not in SCALED_TO_ONE:
        raise DataError(f"{backbone!r} is no backbone that takes [-1, 1]; choose from {', '.join(SCALED_TO_ONE)}.")
    build = getattr(keras.applications, backbone)
    image = keras.Input((size, size, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1, name="to_minus_one_plus_one")(image)
    try:
        body = build(include_top=False, weights=None if weights == "random" else weights, input_tensor=scaled)
    except (ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{backbone} cannot take the weights {weights!r}: {reason}") from error
    evidence = keras.layers.Conv2D(labels, 1, use_bias=False, name="evidence")(body.output)
    logits = keras.layers.GlobalAveragePooling2D(name="logits")(evidence)
    return keras.Model(image, {"logits": logits, "evidence": evidence}, name=f"{body.name}_evidence")


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
