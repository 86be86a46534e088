"""Small networks that are trained from nothing, and the heads that make logits of features.

Stock Keras layers only, so that every runtime and every later Keras can load what was trained.
"""

import keras
import numpy as np
from keras import layers

from hub.formats.foreign import two_of_one


def network(settings: dict, labels: int) -> keras.Model:
    """The network that a recipe describes: float (N, size, size, 3) in 0-255 to logits, and evidence where it has it.

    Args:
        settings: `network` "cnn" or "resnet", `blocks` and the other knobs of `training.settings.OF_NETWORKS`.
        labels: K, the number of labels.
    """
    image = keras.Input((settings["size"],) * 2 + (3,), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="to_minus_one_plus_one")(image)
    x = (_cnn if settings["network"] == "cnn" else _resnet)(x, settings)
    if settings["head"] == "evidence":
        outputs = evidence_head(x, labels, settings["head_dropout"], one_unit=settings["one_unit"])
    else:
        outputs = dense_head(x, labels, settings["dense"], settings["head_dropout"], one_unit=settings["one_unit"])
    return keras.Model(image, outputs, name=settings["network"])


def _cnn(x: keras.KerasTensor, settings: dict) -> keras.KerasTensor:
    """Blocks of 3×3 convolutions, each block closed by 2×2 max pooling and dropout."""
    for filters in settings["blocks"]:
        for count in filters:
            x = _convolution(x, count, settings["batch_norm"])
        x = layers.MaxPooling2D()(x)
        x = layers.Dropout(settings["dropout"])(x) if settings["dropout"] else x
    return x


def _resnet(x: keras.KerasTensor, settings: dict) -> keras.KerasTensor:
    """A stage a block: a convolution that widens and max pooling, then a residual unit for each further number.

    He et al. 2015, https://arxiv.org/abs/1512.03385; pooling at once after the widening convolution, and the fixed
    whitening in front, as Jordan 2024, https://arxiv.org/abs/2404.00498, has them.
    """
    if settings["whiten"]:
        x = layers.Conv2D(24, 2, padding="same", use_bias=False, trainable=False, name="whitening")(x)
    for first, *units in settings["blocks"]:
        x = _convolution(x, first, settings["batch_norm"], pool=True)
        for count in units:
            y = _convolution(x, count, settings["batch_norm"])
            y = layers.Conv2D(first, 3, padding="same", use_bias=not settings["batch_norm"])(y)
            # Each unit begins as the identity, so that the first steps train a shallow network.
            y = layers.BatchNormalization(gamma_initializer="zeros")(y) if settings["batch_norm"] else y
            x = layers.ReLU()(layers.Add()([x, y]))
        x = layers.Dropout(settings["dropout"])(x) if settings["dropout"] else x
    return x


def _convolution(x: keras.KerasTensor, filters: int, batch_norm: bool, *, pool: bool = False) -> keras.KerasTensor:
    x = layers.Conv2D(filters, 3, padding="same", use_bias=not batch_norm, kernel_initializer="he_normal")(x)
    x = layers.MaxPooling2D()(x) if pool else x
    x = layers.BatchNormalization()(x) if batch_norm else x
    return layers.ReLU()(x)


# Heads


def evidence_head(features: keras.KerasTensor, labels: int, dropout: float = 0.0, *, one_unit: bool = False) -> dict:
    """A linear map at every cell, then the mean: {"logits": (N, K), "evidence": (N, h, w, K)}.

    Args:
        features: (N, h, w, C).
        dropout: share of the C features that is left out, in all cells at once, as a dense layer after pooling has it.
        one_unit: see `hub.formats.foreign.two_of_one`.
    """
    x = layers.SpatialDropout2D(dropout)(features) if dropout else features
    if one_unit:
        x = layers.Conv2D(1, 1, use_bias=False, name="unit")(x)
        evidence = two_of_one(layers.Conv2D(2, 1, use_bias=False, trainable=False, name="evidence"), x)
    else:
        evidence = layers.Conv2D(labels, 1, use_bias=False, name="evidence")(x)
    return {"logits": layers.GlobalAveragePooling2D(name="logits")(evidence), "evidence": evidence}


def dense_head(
    features: keras.KerasTensor, labels: int, dense: list[int], dropout: float = 0.0, *, one_unit: bool = False
) -> dict:
    """The classic head, flatten and dense layers, which keeps no map of evidence: {"logits": (N, K)}.

    Args:
        features: (N, h, w, C).
        dense: units of the layers before the last, each with ReLU.
        dropout: before each layer.
        one_unit: see `hub.formats.foreign.two_of_one`.
    """
    x = layers.Flatten()(features)
    for units in dense:
        x = layers.Dropout(dropout)(x) if dropout else x
        x = layers.Dense(units, activation="relu")(x)
    x = layers.Dropout(dropout)(x) if dropout else x
    if one_unit:
        x = layers.Dense(1, name="unit")(x)
        return {"logits": two_of_one(layers.Dense(2, use_bias=False, trainable=False, name="logits"), x)}
    return {"logits": layers.Dense(labels, name="logits")(x)}


def mirrored(model: keras.Model) -> keras.Model:
    """A network that answers a picture by the mean of what it says of it and of its mirror image.

    The second map of evidence is mirrored back, so that the mean of both still lies over the picture and is still the
    score. It costs a second pass, inside the graph, and suits labels that a mirror leaves as they are.

    Args:
        model: of an evidence head; its layers are shared, not copied.
    """
    head = model.get_layer("evidence")
    features = keras.Model(model.input, head.input, name="features")
    image = keras.Input(model.input.shape[1:], name="image")
    seen, turned = head(features(image)), head(features(_mirror(image, "mirror")))
    evidence = layers.Average()([seen, _mirror(turned, "mirror_back")])
    outputs = {"logits": layers.GlobalAveragePooling2D(name="logits")(evidence), "evidence": evidence}
    return keras.Model(image, outputs, name=model.name)


def _mirror(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """(N, h, w, C) with left and right exchanged: a fixed linear map of the columns, which every runtime has."""
    width = x.shape[2]
    exchange = layers.Dense(width, use_bias=False, trainable=False, name=name)
    x = layers.Permute((1, 3, 2))(exchange(layers.Permute((1, 3, 2))(x)))
    exchange.set_weights([np.eye(width, dtype=np.float32)[::-1]])
    return x


def last_layer(model: keras.Model) -> keras.layers.Layer:
    """The layer whose weights make the logits: they can be scaled by scaling it."""
    names = {layer.name for layer in model.layers}
    output = "evidence" if "evidence" in names else "logits"
    return model.get_layer("unit" if "unit" in names else output)


def whiten(model: keras.Model, pixels: np.ndarray) -> None:
    """Set the fixed first convolution to filters under which 2×2 patches of these pictures are uncorrelated.

    The patches' principal components, each divided by its deviation, and their negatives (a ReLU follows). Jordan 2024,
    https://arxiv.org/abs/2404.00498, section 3.1.

    Args:
        pixels: uint8 (N, S, S, 3), N of some thousands.
    """
    scaled = pixels.astype(np.float32) / 127.5 - 1
    height, width = scaled.shape[1] - 1, scaled.shape[2] - 1
    corners = [scaled[:, i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)]
    patches = np.stack(corners, axis=3).reshape(-1, 12)
    variances, components = np.linalg.eigh(np.cov(patches, rowvar=False))
    filters = components / np.sqrt(variances + 1e-3 * variances.max())
    kernel = np.concatenate([filters, -filters], axis=1).reshape(2, 2, 3, 24)
    model.get_layer("whitening").set_weights([kernel.astype(np.float32)])
