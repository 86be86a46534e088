"""The graph inside a Keras model: what made a tensor, and the same graph with some of them replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import keras


class Made(NamedTuple):
    """How a tensor of a Keras model came about."""

    operation: keras.Operation
    index: int  # type: ignore[assignment]  # which of the operation's outputs it is; a tuple's `index` is not used
    inputs: list[keras.KerasTensor]  # none for the model's own input
    node: Any  # the call: its `arguments`, its `outputs`


def made_by(tensor: keras.KerasTensor) -> Made:
    """Return what made a tensor."""
    operation, number, index = tensor._keras_history
    node = operation._inbound_nodes[number]
    return Made(operation, index, node.input_tensors, node)


def is_model(operation: keras.Operation) -> bool:
    """Return whether an operation is a model with a graph of its own."""
    import keras

    return isinstance(operation, keras.Model) and bool(getattr(operation, "outputs", None))


def is_stock(operation: keras.Operation) -> bool:
    """Return whether an operation is one of Keras's own."""
    return type(operation).__module__.startswith("keras.")


def replaced(outputs: list[keras.KerasTensor], swaps: dict[int, keras.KerasTensor]) -> list[keras.KerasTensor]:
    """Return the outputs of a graph in which some inner tensors have given way to others.

    Args:
        swaps: by the `id` of a tensor, what takes its place. What does not depend on one of them is not called again.
    """
    import keras

    known, todo = dict(swaps), list(outputs)
    while todo:  # no recursion: networks are deeper than Python's stack
        tensor = todo[-1]
        operation, _, inputs, node = made_by(tensor)
        missing = [each for each in inputs if id(each) not in known]
        if id(tensor) in known:
            todo.pop()
        elif missing:
            todo += missing
        elif all(known[id(each)] is each for each in inputs):  # the model's own input among them
            known |= {id(each): each for each in node.outputs}
        else:
            arguments, options = node.arguments.fill_in(known)
            results = keras.tree.flatten(operation(*arguments, **options))
            known |= {id(each): result for each, result in zip(node.outputs, results, strict=True)}
    return [known[id(tensor)] for tensor in outputs]
