import pytest
from optuna.distributions import CategoricalDistribution as Choices
from optuna.distributions import FloatDistribution as Floats
from optuna.distributions import IntDistribution as Whole

from hub.errors import DataError
from training.search.search_space import default_space, inside, parse_space
from training.settings import load_recipe

DIGITS = load_recipe("mnist_cnn_augmented")
PETS = load_recipe("cats_vs_dogs_mobilenetv2")


def test_a_recipe_is_searched_around_its_own_values():
    settings = {
        **load_recipe("mnist_cnn"), "learning_rate": 2e-3, "batch_size": 64, "epochs": 5, "dropout": 0.1,
        "head_dropout": 0.4, "rotation": 12.0, "shift": 0.08, "flip": False, "zoom": 0.6,
    }  # fmt: skip
    assert default_space(settings) == {
        "learning_rate": Floats(2e-4, 2e-2, log=True),
        "batch_size": Choices([32, 64, 128]),
        "epochs": Whole(3, 10),
        "dropout": Floats(0, 0.6),
        "head_dropout": Floats(0, 0.6),
        "rotation": Floats(0, 24),
        "shift": Floats(0, 0.16),
        "zoom": Floats(0, 0.9),  # the most that it may be
    }


def test_a_crop_goes_down_to_double_and_a_flip_on_and_off():
    found = default_space({**PETS, "crop_area": 0.8, "flip": True, "rotation": 0.0})
    assert found["crop_area"] == Floats(0.6, 1)
    assert found["flip"] == Choices([False, True])
    assert not {"rotation", "shift", "head_dropout", "jpeg"} & found.keys()
    assert default_space({**PETS, "crop_area": 0.3})["crop_area"] == Floats(0.05, 1)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(1, [1, 2]), (2, [1, 2, 4]), (100, [64, 100, 128]), (128, [64, 128, 256]), (4096, [2048, 4096])],
)
def test_batch_sizes_are_neighbouring_powers_of_two(size, sizes):
    assert default_space({**DIGITS, "batch_size": size})["batch_size"] == Choices(sizes)


@pytest.mark.parametrize("recipe", ["mnist_cnn", "mnist_cnn_augmented", "cifar10_cnn", "cats_vs_dogs_mobilenetv2"])
def test_each_default_space_holds_its_recipe(recipe):
    settings = load_recipe(recipe)
    space = default_space(settings)
    assert inside(space, settings) == {name: settings[name] for name in space}


@pytest.mark.parametrize(
    ("spec", "knob"),
    [
        ("learning_rate=1e-5..1e-2:log", Floats(1e-5, 1e-2, log=True)),
        ("dropout=0.0..0.5", Floats(0, 0.5)),
        ("dropout = 0..0.5", Floats(0, 0.5)),
        ("epochs=2..8", Whole(2, 8)),
        ("batch_size=8..512:log", Whole(8, 512, log=True)),
        ("batch_size=32,64,128,64", Choices([32, 64, 128])),
        ("learning_rate=1e-3", Choices([1e-3])),
        ("rotation=0,5,10", Choices([0.0, 5.0, 10.0])),
        ("flip=True,False", Choices([True, False])),
        ("optimizer=sgd, adam", Choices(["sgd", "adam"])),
    ],
)
def test_what_a_space_says(spec, knob):
    name = spec.partition("=")[0].strip()
    found = parse_space(DIGITS, [spec])
    assert found == {name: knob}
    values = getattr(found[name], "choices", ())
    assert [type(value) for value in values] == [type(value) for value in getattr(knob, "choices", ())]


def test_a_share_of_layers_may_be_searched_where_the_recipe_has_none():
    assert parse_space(PETS, ["freeze=0..0.9"]) == {"freeze": Floats(0, 0.9)}
    assert parse_space(PETS, ["freeze=None,0.5,block_2_add"]) == {"freeze": Choices([None, 0.5, "block_2_add"])}
    assert inside(parse_space(PETS, ["freeze=0..0.9"]), PETS) == {}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("learning_rat=1e-5..1e-2", "There is no setting 'learning_rat'; did you mean 'learning_rate'"),
        ("learning_rate", "'learning_rate' is not of the form KEY=LOW..HIGH or KEY=VALUE,VALUE."),
        ("learning_rate=1e-5..20", "learning_rate must be from 0.0 to 10.0, not 20.0"),
        ("batch_size=32,0", "batch_size must be from 1 to 4096, not 0"),
        ("optimizer=sgd,lion", "optimizer must be one of adamw, adam, sgd, rmsprop, not 'lion'"),
        ("dropout=0.5..0.1", "The range of dropout goes from 0.5 to 0.1; name the lower end first"),
        ("dropout=0.5..0.5", "The range of dropout goes from 0.5 to 0.5"),
        ("dropout=0..0.5:log", "The range of dropout is logarithmic and starts at 0.0; start it above 0"),
        ("dropout=0..0.5:lin", "'lin' is not a scale; write dropout=0..0.5:log, or dropout=0..0.5"),
        ("dropout=..0.5", "dropout must be of type float"),
        ("dropout=", "dropout must be of type float"),
        ("epochs=1.5..3", "epochs must be of type int"),
        ("flip=False..True", "flip has no range, as it is not a number; name its values, as in flip=A,B"),
        ("blocks=[[4]],[[8]]", "blocks is a list, which is not for searching"),
        ("size=28,32", "size is not for searching"),
        ("seed=0..9", "seed is not for searching, as trials that differ in it cannot be compared"),
        ("data=a,b", "data is not for searching"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_sentence(spec, sentence):
    with pytest.raises(DataError) as refusal:
        parse_space(DIGITS, [spec])
    assert str(refusal.value).startswith(sentence)
