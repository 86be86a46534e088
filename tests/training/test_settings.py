import importlib
from dataclasses import asdict
from pathlib import Path

import pytest

from hub.errors import DataError
from training.photos.augment import Augmentation
from training.settings import (
    AUGMENTATION,
    DEFAULTS,
    KNOBS,
    card_settings,
    check,
    listed,
    load_recipe,
    override,
    recipes,
)


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
    check({**load_recipe(name), "data": "photos"})  # your_own brings none


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


def test_what_a_recipe_leaves_out_has_its_default_and_can_be_set():
    settings = load_recipe("mnist_cnn")
    assert settings["l2"] == 0.0 and settings["network"] == "cnn"
    assert "inverse_regularisation" not in settings and "backbone" not in settings
    assert override(settings, ["l2=1e-4"])["l2"] == 1e-4
    assert list(settings)[:3] == ["data", "network", "size"]  # its own, in its order, come first


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("blocks=[]", "blocks must be lists of numbers of filters"),
        ("blocks=[[32],[]]", "blocks must be lists of numbers of filters"),
        ("blocks=[[8],[8],[8],[8],[8]]", "size must be at least 32, as each block halves it"),
        ("dense=[0]", "dense must be a list of numbers of units"),
        ("head=flat", "head must be one of evidence, dense"),
        ("head=evidence", r"dense must be \[\] under head=evidence"),
        ("whiten=True", "whiten must be False unless network=resnet"),
        ("mirror=True", "mirror must be False unless head=evidence"),
        ("schedule=cosin", "schedule must be one of cosine, triangle, constant"),
        ("dropout=1.0", "dropout must be from 0.0 to 0.95"),
        ("data=", "This recipe has no photos"),
    ],
)
def test_what_no_small_network_can_be_made_of_is_one_sentence(assignment, sentence):
    with pytest.raises(DataError, match=sentence):
        check(override(load_recipe("mnist_cnn"), [assignment]))


@pytest.mark.parametrize(("value", "fine"), [("0.5", True), ("block_4_add", True), ("1.5", False), ("True", False)])
def test_freeze_is_a_share_or_a_layers_name(value, fine):
    settings = override(load_recipe("cats_vs_dogs_mobilenetv2"), [f"freeze={value}"])
    if fine:
        return check(settings)
    with pytest.raises(DataError, match="freeze must be a share from 0 to 1 or a layer's name"):
        check(settings)


def test_a_card_tells_what_is_not_at_its_default():
    settings = override(load_recipe("mnist_cnn"), ["l2=0.001"])
    shown = card_settings(settings)
    assert shown["l2"] == 0.001 and shown["epochs"] == settings["epochs"]
    assert not {"data", "momentum", "jpeg"} & shown.keys()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epoch = 3", "assigns 'epoch', which is not a setting; did you mean 'epochs'"),
        ("freeze = 0.5", "assigns 'freeze', which is not a setting"),  # of backbones, and this is a network
        ("flip = true", "not plain Python assignments: name 'true' is not defined"),
        ("epochs 3", "not plain Python assignments: invalid syntax"),
        ("del size", "does not assign 'size'; add it"),
        ("epochs = '3'", "epochs must be from 1 to 10000, not '3'"),
        ("epochs = 2.5", "epochs must be a whole number, not 2.5"),
        ("flip = 'no'", "flip must be True or False, not 'no'"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_sentence(text, sentence, tmp_path, monkeypatch):
    name = tmp_path.name
    (tmp_path / f"{name}.py").write_text(f"data = 'photos'\nnetwork = 'cnn'\nsize = 32\n{text}\n")
    monkeypatch.setattr(importlib.import_module("training.recipes"), "__path__", [str(tmp_path)])
    with pytest.raises(DataError, match=sentence):
        check(load_recipe(name))


def test_every_default_is_one_that_may_be_set_and_does_nothing_to_a_picture():
    check({**DEFAULTS, **load_recipe("mnist_cnn"), **DEFAULTS})
    assert asdict(Augmentation()) == {name: DEFAULTS[name] for name in AUGMENTATION}
    assert Augmentation.of(DEFAULTS).does_nothing()


def test_the_documentation_lists_every_setting():
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    remedy = "give: python -m training settings > docs/settings.md"
    assert page.read_text(encoding="utf-8") == listed() + "\n", remedy
    assert all(f"- `{name}` (" in listed() and knob.what for name, knob in KNOBS.items())
