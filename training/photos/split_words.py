"""Words that people call their splits by: one rule for folders and for the splits of a data set on the Hub."""

import functools
import re
import unicodedata

# What a folder or a split may be called, lower-case and without what `_FILLERS` has. "trainval" is what is left when a
# test has been taken out.
WORDS = {
    "train": (
        "train", "training", "trainings", "trn", "trainval", "entrenamiento", "entrainement", "entraînement",
        "apprentissage", "addestramento", "treino", "treinamento", "обучение", "训练", "訓練", "学習", "훈련", "학습",
    ),
    "validation": (
        "validation", "validate", "validating", "valid", "val", "dev", "devel", "development", "crossvalidation",
        "validierung", "validierungs", "validación", "validacion", "convalida", "validação", "validacao", "валидация",
        "验证", "驗證", "検証", "검증",
    ),
    "test": (
        "test", "tests", "testing", "eval", "evaluation", "holdout", "heldout", "unseen", "pred", "predict", "prueba",
        "pruebas", "évaluation", "tst", "teste", "тест", "测试", "測試", "テスト", "테스트",
    ),
}  # fmt: skip
_SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}
# What stands beside such a word and adds nothing, as in training_set, seg_train, TestImages, Trainingsdaten.
_FILLERS = (
    "set", "sets", "data", "dataset", "datasets", "split", "image", "images", "img", "imgs", "picture", "pictures",
    "pic", "pics", "photo", "photos", "file", "files", "folder", "dir", "seg", "sample", "samples", "daten",
    "datensatz", "bilder", "fotos", "datos", "imágenes", "imagenes", "jpg", "jpeg", "png", "集", "数据", "數據",
    "データ", "用", "图片", "圖片", "画像", "세트", "데이터",
)  # fmt: skip
_LONGEST_FIRST = sorted(_FILLERS, key=len, reverse=True)


def words_of(name: str) -> list[str]:
    """The words of a name: TrainSet_2 has train and set. Case, digits and separators aside."""
    name = unicodedata.normalize("NFC", name)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+", name.casefold())


def is_filler(name: str) -> bool:
    """Whether a folder's name says only that there are pictures in it: images, data, photos 2."""
    words = words_of(name)
    return bool(words) and all(word in _FILLERS for word in words)


@functools.lru_cache(maxsize=4096)  # asked for every picture
def split_of(name: str, *, any_word: bool = False) -> str | None:
    """The split that a name means ("train", "validation" or "test"), or None where it means none.

    Args:
        name: a folder's name, or that of a data set's split.
        any_word: one of its words is enough, as in validation_matched. A folder's name has to mean the split and
            nothing else: "crash test" is a label.
    """
    joined = "".join(words_of(name))
    whole = joined
    while whole and whole not in _SPLIT_OF:
        shorter = next((whole[len(f) :] for f in _LONGEST_FIRST if whole.startswith(f)), None)
        shorter = shorter or next((whole[: -len(f)] for f in _LONGEST_FIRST if whole.endswith(f)), None)
        if not shorter:
            break
        whole = shorter
    if whole in _SPLIT_OF:
        return _SPLIT_OF[whole]
    if not any_word:
        return None
    found = {_SPLIT_OF[word] for word in words_of(name) if word in _SPLIT_OF}
    return found.pop() if len(found) == 1 else None


def split_in(name: str) -> tuple[str, str] | None:
    """The split that one word of a name means, and the rest of it: train_cats has train and "cats"."""
    words = words_of(name)
    found = [word for word in words if word in _SPLIT_OF]
    rest = [word for word in words if word not in _SPLIT_OF and word not in _FILLERS]
    return (_SPLIT_OF[found[0]], " ".join(rest)) if len(found) == 1 and rest else None
