"""Keras models from elsewhere: what they end in is brought to the logits that a bundle carries.

The usual classifier ends in probabilities: a softmax, or one unit with a sigmoid. Taken for logits these would go
through softmax a second time, and 0.9999 would become 0.7310.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hub.drawn import drawn
from hub.errors import BundleError
from hub.graphs import is_model, is_stock, made_by

if TYPE_CHECKING:
    import keras

# Activations that make probabilities, by their names in lower case and without underscores.
PROBABILITIES = {"softmax", "sigmoid", "hardsigmoid", "sparsesigmoid", "sparsemax"}
# Keras's layers and operations that leave the numbers of an answer as they are.
UNCHANGING = {
    "ActivityRegularization", "AlphaDropout", "Cast", "Dropout", "ExpandDims", "Flatten", "GaussianDropout",
    "GaussianNoise", "Identity", "Reshape", "Squeeze",
}  # fmt: skip
INVERSES = {"Log", "LogSoftmax", "Logsumexp"}  # the logarithm of probabilities is as good as their logits
DRAWN = 8  # pictures that a model is asked about before it is taken
SUM = 1e-5  # how near to 1 the probabilities of a picture add up in 32-bit numbers
REMEDY = "build it again so that it ends in that softmax or sigmoid, or before it, without an activation"


def as_classifier(model: keras.Model, count: int) -> keras.Model:
    """Return a classifier that answers {"logits": (N, K)}, with its "evidence" where it has one.

    Args:
        model: input (N, S, S, 3); one output, or a dictionary with "logits". A softmax at the end is taken away, also
            inside nested models; weights stay. One unit z, with a sigmoid or without activation, becomes the logits
            (0, z), so that the second label is what 1 stood for.
        count: K, the number of labels.

    Returns:
        The same model where there is nothing to change.

    Raises:
        BundleError: it has other inputs or outputs, or they are probabilities whose logits cannot be had.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise BundleError(
            f"from_keras takes a Keras model, not {type(model).__name__}; load it with keras.saving.load_model first."
        )
    _check_input(model)
    outputs = _named_outputs(model)
    logits = _without_probabilities(model.name, outputs["logits"], count)
    evidence = outputs.get("evidence")
    _check_precision(model.name, logits, evidence)
    if logits.shape[1:] == (1,):
        if count != 2:
            raise BundleError(
                f"{model.name} has one output, which tells two labels apart, and there are {count:,}; give two labels, "
                "first what 0 stands for, then what 1 stands for."
            )
        _check_unit(model.name, logits)
        logits = two_of_one(keras.layers.Dense(2, use_bias=False, trainable=False, name="two_logits"), logits)
        if evidence is not None and evidence.shape[-1] == 1:
            two = keras.layers.Conv2D(2, 1, use_bias=False, trainable=False, name="two_evidence")
            evidence = two_of_one(two, evidence)
    if logits is outputs["logits"] and isinstance(_output(model), dict):
        return model
    wanted = {"logits": logits} if evidence is None else {"logits": logits, "evidence": evidence}
    return keras.Model(model.inputs[0], wanted, name=model.name)


def demand_logits(model: keras.Model) -> None:
    """Raise a BundleError if the graph shows that {"logits": …} of a model are probabilities."""
    logits = model.output["logits"]
    if _without_probabilities(model.name, logits, logits.shape[-1]) is not logits:
        raise BundleError(
            f"The logits of {model.name} are probabilities already; give it to ImageClassifier.from_keras, which takes "
            "the logits behind them."
        )


def refuse_probabilities(name: str, answer: Callable[[np.ndarray], tuple], size: int) -> None:
    """Raise a BundleError if what a model says of a few drawn pictures are probabilities, whatever its graph shows.

    Args:
        name: of the model, for the sentence.
        answer: as a `hub.formats.Runner` does, logits first.
        size: S, the side of its pictures in pixels.
    """
    logits, _ = answer(drawn(DRAWN, size))
    if (logits >= 0).all() and (logits <= 1).all() and (abs(logits.sum(axis=1) - 1) <= SUM).all():
        raise BundleError(
            f"The logits of {name} are probabilities already: those of each of {DRAWN} drawn pictures add up to 1; "
            f"{REMEDY}."
        )


def two_of_one(layer: keras.layers.Layer, unit: keras.KerasTensor) -> keras.KerasTensor:
    """The logits (0, z) of one unit z: softmax of them is sigmoid(z), and their cross-entropy the binary one of z.

    Args:
        layer: linear, from one channel to two and without a bias, such as Dense(2, use_bias=False).
        unit: z, with one channel.
    """
    two = layer(unit)
    layer.set_weights([np.array([0, 1], np.float32).reshape(layer.get_weights()[0].shape)])
    return two


# ---- what goes in and comes out


def _check_input(model: keras.Model) -> None:
    try:
        shapes, output = [tensor.shape for tensor in model.inputs or ()], _output(model)
    except AttributeError:  # a subclassed model, or one that was never built
        shapes, output = [], None
    if not shapes or output is None:
        raise BundleError(
            f"{model.name} has no graph from its input to its output; build it with keras.Model(inputs, outputs), or "
            "begin a Sequential model with keras.Input."
        )
    if len(shapes) > 1 or len(shapes[0]) != 4 or shapes[0][1] != shapes[0][2] or shapes[0][1:] != (*shapes[0][1:3], 3):
        raise BundleError(_other_input(model.name, shapes))
    if shapes[0][1] is None:
        raise BundleError(
            f"{model.name} takes pictures of any size, and a bundle has one; choose it with "
            "image = keras.Input((224, 224, 3)) and keras.Model(image, model(image))."
        )


def _other_input(name: str, shapes: list[tuple]) -> str:
    takes = " and ".join(str(shape) for shape in shapes)
    needed = f"{name} takes {takes}, and a bundle's model takes square colour pictures, (None, S, S, 3)"
    if len(shapes) > 1 or len(shapes[0]) != 4:
        return f"{needed}, so it cannot be used here."
    if shapes[0][-1] == 1:
        return f"{needed}; put keras.ops.mean(image, axis=-1, keepdims=True) before it, which makes colours grey."
    return f"{needed}; put layers before it that make one of the other, such as keras.layers.Resizing."


def _output(model: keras.Model) -> Any:
    """Return the tensors that a model answers with, as its own graph makes them."""
    import keras

    # The `output` of a Sequential model is what it was first called for in another model.
    return model.outputs if isinstance(model, keras.Sequential) else model.output


def _named_outputs(model: keras.Model) -> dict[str, keras.KerasTensor]:
    output = _output(model)
    if isinstance(output, list | tuple) and len(output) == 1:
        (output,) = output
    named = output if isinstance(output, dict) else {"logits": output}
    if isinstance(output, list | tuple) or not set(named) <= {"logits", "evidence"} or "logits" not in named:
        raise BundleError(
            f"The Keras model {model.name} must return one output, {{'logits': …}} or {{'logits': …, 'evidence': …}}; "
            "build it with keras.Model(inputs, that dictionary)."
        )
    if len(named["logits"].shape) != 2:
        raise BundleError(
            f"{model.name} answers with {named['logits'].shape}, and logits are (None, number of labels); end it in "
            "pooling and a dense layer."
        )
    return named


def _check_precision(name: str, *outputs: keras.KerasTensor | None) -> None:
    """Refuse what is rounded to 16 bits, as under the policy mixed_float16; the weights have all of their 32."""
    rounded = next((each.dtype for each in outputs if each is not None and each.dtype != "float32"), None)
    if rounded:
        raise BundleError(
            f"{name} computes its logits in {rounded}, and a bundle's are float32; build it again after "
            'keras.config.set_dtype_policy("float32") and give it the same weights, new.set_weights(old.get_weights()).'
        )


# ---- back from the output


def _without_probabilities(name: str, tensor: keras.KerasTensor, count: int) -> keras.KerasTensor:
    """Return the tensor, or what it is the probabilities of; raise a BundleError where that cannot be had."""
    found = _before(tensor)
    if found is not None:
        kind, units, before = found
        if before is not None and ((kind == "softmax" and units > 1) or (kind == "sigmoid" and units == 1)):
            return before
        if kind == "sigmoid" and units > 1:
            raise BundleError(
                f"{name} ends in a sigmoid for each of {units:,} outputs, so its probabilities do not add up to 1 and "
                "no label excludes another, as they must here; train it with a softmax at the end."
            )
        raise BundleError(
            f"{name} ends in a {kind} over {units:,} outputs, whose logits cannot be had; end it in "
            'keras.layers.Dense(number of labels, "softmax"), or for two labels in Dense(1, "sigmoid").'
        )
    if _made_of_probabilities(tensor):
        raise BundleError(
            f"{name} computes more after its probabilities, so its {count:,} outputs are not logits; {REMEDY}."
        )
    return tensor


def _before(tensor: keras.KerasTensor) -> tuple[str, int, keras.KerasTensor | None] | None:
    """Find what makes a tensor probabilities, through layers that change no number and through nested models.

    Returns:
        The activation's name, over how many numbers it goes, and the tensor without it (None if it cannot be made);
        None where there is no such activation.
    """
    import keras

    operation, index, inputs, node = made_by(tensor)
    if not inputs:
        return None
    if is_model(operation):
        found = _before(operation.outputs[index])
        if found is None or found[2] is None:
            return found
        kind, units, before = found
        return kind, units, keras.Model(operation.inputs, before, name=operation.name)(*inputs)
    kind = _activation(operation)
    if kind in PROBABILITIES:
        units = tensor.shape[-1]
        rank, axis = len(tensor.shape), getattr(operation, "axis", -1)
        if not is_stock(operation) or axis not in (-1, rank - 1) or units is None or math.prod(_sides(tensor)) != units:
            return kind, units or 0, None
        return kind, units, _linear(operation, inputs, node.arguments)
    if not _is_unchanging(operation, kind):
        return None
    found = _before(inputs[0])
    if found is None or found[2] is None:
        return found
    return *found[:2], operation(found[2])


def _linear(operation: keras.Operation, inputs: list, arguments: Any) -> keras.KerasTensor:
    """What goes into an activation: a layer that has both weights and an activation is made anew without the latter."""
    if not getattr(operation, "weights", None):
        return inputs[0]
    # By another name: the layer itself stays in the model where it is used twice.
    changes = {"activation": "linear", "name": f"{operation.name}_logits"}
    layer = type(operation).from_config({**operation.get_config(), **changes})
    before = layer(*arguments.args)
    layer.set_weights(operation.get_weights())
    return before


def _made_of_probabilities(tensor: keras.KerasTensor) -> bool:
    """Whether a tensor is computed of probabilities alone, with no layer between that was trained."""
    operation, index, inputs, _ = made_by(tensor)
    if not inputs or type(operation).__name__ in INVERSES:
        return False
    if is_model(operation):
        return _made_of_probabilities(operation.outputs[index])
    if _activation(operation) in PROBABILITIES:
        return True
    return not getattr(operation, "weights", None) and all(_made_of_probabilities(each) for each in inputs)


def _check_unit(name: str, unit: keras.KerasTensor) -> None:
    """Refuse one output of which the graph does not tell that it is the z of a sigmoid."""
    operation, index, inputs, _ = made_by(unit)
    if inputs and is_model(operation):
        return _check_unit(name, operation.outputs[index])
    kind = _activation(operation)
    if inputs and _is_unchanging(operation, kind):
        return _check_unit(name, inputs[0])
    pooled = type(operation).__name__ == "GlobalAveragePooling2D"
    if kind != "linear" or not (getattr(operation, "weights", None) or pooled):
        raise BundleError(
            f"{name} ends in one unit that is neither a sigmoid nor a layer without activation, so it does not say "
            'which label it means; end it in Dense(1, "sigmoid").'
        )
    return None


def _is_unchanging(operation: keras.Operation, activation: str) -> bool:
    name = type(operation).__name__
    return is_stock(operation) and (name in UNCHANGING or (name == "Activation" and activation == "linear"))


def _activation(operation: keras.Operation) -> str:
    """Return the name of what an operation does to its numbers in the end, in lower case; "linear" for nothing."""
    applied = getattr(operation, "activation", None)
    if applied is None:
        name = type(operation).__name__
        return name.lower() if name.lower() in PROBABILITIES else "linear"
    name = getattr(applied, "__name__", None) or type(applied).__name__
    return name.lower().replace("_", "").removesuffix("v2")  # TensorFlow's own is called softmax_v2


def _sides(tensor: keras.KerasTensor) -> list[int]:
    return [side or 0 for side in tensor.shape[1:]]
