import importlib

import pytest

from hub.errors import DataError
from training.settings import check, load_recipe, override, recipes


def test_a_recipe_is_its_plain_assignments():
    settings = load_recipe("cats_vs_dogs_mobilenetv2")
    assert settings["backbone"] == "MobileNetV2"
    assert settings["data"] == "microsoft/cats_vs_dogs"
    assert not any(key.startswith("_") for key in settings)


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_says_what_to_expect_and_how_to_run_it(name):
    text = importlib.import_module(f"training.recipes.{name}").__doc__
    assert f"python -m training fit {name}" in " ".join(text.split())
    assert "Measured" in text
    check(load_recipe(name))


@pytest.mark.parametrize(
    "assignment",
    ["epochs=0", "batch_size=0", "inverse_regularisation=[]", "size=8", "crop_area=2.0", "jpeg=200", "patience=0"],
)
def test_a_value_no_run_can_work_with_is_one_sentence(assignment):
    settings = override(load_recipe("cats_vs_dogs_mobilenetv2"), [assignment])
    with pytest.raises(DataError, match=f"{assignment.split('=')[0]} must be"):
        check(settings)


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
