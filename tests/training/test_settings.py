import importlib

import pytest

from hub.errors import DataError
from training.settings import load_recipe, override, recipes


def test_a_recipe_is_its_plain_assignments():
    settings = load_recipe("cats_vs_dogs_mobilenetv2")
    assert settings["backbone"] == "MobileNetV2"
    assert settings["data"] == "microsoft/cats_vs_dogs"
    assert not any(key.startswith("_") for key in settings)


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_says_what_it_is(name):
    assert importlib.import_module(f"training.recipes.{name}").__doc__.strip()


def test_a_mistyped_recipe_is_answered_with_the_nearest():
    with pytest.raises(DataError, match="did you mean 'cats_vs_dogs_mobilenetv2'"):
        load_recipe("cats_vs_dog_mobilenet")


def test_values_take_the_recipes_type():
    settings = {"epochs": 8, "rate": 1e-4, "flip": True, "name": "a", "jpeg": None, "strengths": [0.1]}
    changed = override(settings, ["epochs=3", "rate=1", "flip=False", "name=12", "jpeg=50", "strengths=[1.0, 2.0]"])
    assert changed == {"epochs": 3, "rate": 1.0, "flip": False, "name": "12", "jpeg": 50, "strengths": [1.0, 2.0]}
    assert isinstance(changed["rate"], float)
    assert settings["epochs"] == 8


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("epoch=3", "no setting 'epoch'; did you mean 'epochs'"),
        ("zzz=3", r"no setting 'zzz' \(there are: epochs, flip\)"),
        ("epochs=many", "epochs must be of type int"),
        ("epochs=2.5", "epochs must be of type int"),
        ("epochs=True", "epochs must be of type int"),
        ("flip=1", "flip must be of type bool"),
        ("epochs", "not of the form key=value"),
    ],
)
def test_a_wrong_assignment_is_one_sentence(assignment, sentence):
    with pytest.raises(DataError, match=sentence):
        override({"epochs": 8, "flip": True}, [assignment])
