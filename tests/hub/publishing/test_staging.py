"""What is published, and the proof that it agrees: every runtime in a process of its own, on the same pictures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from hub import ImageClassifier, bundle
from hub.agreement import LargestPhoto, SameTensor, failures, read_agreement
from hub.config import KERAS_KEYS, TRANSFORMERS_KEYS, make_config, merge
from hub.errors import BundleError, Refusal
from hub.files import sha256
from hub.formats import FORMATS, Answers
from hub.formats.base import HUB, WORKER
from hub.formats.transformers import Transformers
from hub.publishing import staging, verify


@pytest.fixture
def folder(verified_2, tmp_path) -> Path:
    """A verified bundle that a test may change."""
    return shutil.copytree(verified_2, tmp_path / "bundle")


@pytest.fixture(scope="module")
def staged(verified_2, tmp_path_factory) -> Path:
    """The verified bundle as it is published."""
    return staging.prepare(verified_2, tmp_path_factory.mktemp("staged"), "tester/tiny")


def change_agreement(folder: Path, change) -> None:
    """Apply a function to what agreement.json says."""
    found = bundle.read_json(folder, bundle.AGREEMENT)
    change(found)
    bundle.write_json(folder, bundle.AGREEMENT, found)


def test_every_runtime_agrees_with_keras(verified_2, photo_files):
    """The standard formats, each with its versions; the reference agrees with itself exactly."""
    found = read_agreement(verified_2)
    assert list(found.runtimes) == ["keras", "keras-folder", "onnx", "litert", "openvino"]
    assert found.left_out.keys() == {"transformers"} and "architecture" in found.left_out["transformers"]
    assert (found.photos, found.unreadable, found.title) == (8, 1, "drawn pictures")
    assert found.largest_photo == LargestPhoto(4000, 3000, enlarged=True)
    assert found.runtimes["keras"].same_tensor == SameTensor(0.0, 0.0, 0.0)
    for row in found.runtimes.values():
        assert row.same_tensor.probability <= 1e-4
        assert row.same_tensor.evidence <= 1e-4 * max(1, found.largest_evidence)
        assert row.same_file.probability <= 1e-4 and row.same_file.other_label == 0
        assert row.same_file.largest_photo < 0.01
        assert all(version[0].isdigit() for version in row.versions.values())
    assert failures(found) == []


def test_the_rows_tell_who_turns_photos(verified_2):
    """Keras's load_img does not read the EXIF note, and its row shows it; Pillow's exif_transpose does."""
    rows = read_agreement(verified_2).runtimes
    assert rows["keras"].same_file.turned_photo > 10 * rows["onnx"].same_file.turned_photo


def test_verify_touches_only_the_agreement_and_the_card(bundle_2, verified_2):
    """All else is byte for byte the bundle that was verified."""
    before, after = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")} for f in (bundle_2, verified_2))
    changed = {path.as_posix() for path in after if before.get(path) != after[path]}
    assert changed == {bundle.AGREEMENT, bundle.CARD}
    assert (verified_2 / bundle.CARD).read_text() == staging.card(verified_2)


def test_the_layout_is_what_five_libraries_look_for(staged, verified_2):
    """The files are there, and agreement.json names the hash of each one that holds weights."""
    names = {path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()}
    wanted = {"model.keras", "metadata.json", "model.weights.h5", "onnx/model.onnx", "litert/model.tflite"}
    wanted |= {"openvino/model.xml", "openvino/model.bin"}
    assert names == wanted | {"config.json", "metrics.json", "agreement.json", "labels.txt", "README.md"}
    assert read_agreement(staged).files == {name: sha256(staged / name) for name in wanted}
    assert (staged / bundle.LABELS).read_text() == "cat\ndog\n"
    assert '"tester/tiny"' in (staged / bundle.CARD).read_text()
    assert "OWNER/NAME" not in (staged / bundle.CARD).read_text()


def test_what_is_published_comes_out_the_same_each_time(folder, staged, tmp_path):
    """So the hashes in agreement.json hold for whoever publishes the bundle from another machine."""
    again = staging.prepare(folder, tmp_path / "again", "tester/tiny")
    for path in staged.rglob("*.*"):
        assert (again / path.relative_to(staged)).read_bytes() == path.read_bytes(), path.name


def test_what_lies_in_a_folder_of_a_format_is_not_trusted(staged, tmp_path):
    """Whatever somebody put in their place, the formats are derived from model.keras again."""
    folder = shutil.copytree(staged, tmp_path / "bundle")
    for name in ("model.weights.h5", "litert/model.tflite", "metadata.json"):
        (folder / name).write_bytes(b"somebody else's")
    again = staging.prepare(folder, tmp_path / "again", "tester/tiny")
    for name in read_agreement(staged).files:
        assert (again / name).read_bytes() == (staged / name).read_bytes(), name


def test_a_link_in_a_bundle_publishes_no_other_file(folder, tmp_path):
    """A folder that came from elsewhere must not choose which files of this machine go out."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "token.png").write_text("hf_secret")
    for link, target in ((folder / "figures", "secret"), (folder / bundle.PREDICTIONS, "secret/token.png")):
        link.symlink_to(tmp_path / target)
        with pytest.raises(BundleError, match="is a link to .*; put the file itself there"):
            staging.prepare(folder, tmp_path / "out", "tester/tiny")
        link.unlink()


@pytest.mark.parametrize("runtime", ["keras", "keras-folder", "onnx", "litert", "openvino"])
def test_any_runtime_answers(runtime, staged, bundle_2, photos):
    """from_pretrained(runtime=…) gives the same answers, with their evidence."""
    expected = ImageClassifier.from_pretrained(bundle_2).predict_tensors(photos)
    answered = ImageClassifier.from_pretrained(staged, runtime=runtime).predict_tensors(photos)
    for ours, theirs in zip(answered, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_published_config_is_three_libraries_and_ours_comes_back(staged, bundle_2, tmp_path):
    """Keras's keys are there, ours are as they were, and saving what was pulled writes ours alone."""
    config = json.loads((staged / bundle.CONFIG).read_text())
    ours = json.loads((bundle_2 / bundle.CONFIG).read_text())
    assert config.keys() == ours.keys() | KERAS_KEYS
    assert config["class_name"] == "Functional"
    saved = ImageClassifier.from_pretrained(staged).save_pretrained(tmp_path / "saved")
    assert json.loads((saved / bundle.CONFIG).read_text()) == ours
    assert read_agreement(saved) is not None


def test_the_libraries_keys_do_not_collide():
    """Neither with each other nor with ours; a config that would be misread is refused when it is made."""
    ours = make_config(["cat", "dog"], 32, (4, 4), backbone={}, license="mit", name="tiny").to_json().keys()
    assert not KERAS_KEYS & TRANSFORMERS_KEYS
    assert not ours & (KERAS_KEYS | TRANSFORMERS_KEYS)
    for key in ("config", "hidden_act"):
        with pytest.raises(BundleError, match=f"The entry {key} .* choose another name"):
            make_config(["cat", "dog"], 32, (4, 4), **{key: 1})
    with pytest.raises(BundleError, match="config.json has a image_size that Transformers would misread"):
        merge({"image_size": 32}, {"image_size": 64}, Transformers.title)
    assert merge({"model_type": "my_own"}, {"model_type": "vit"}, "X") == {"model_type": "vit"}


def test_every_format_s_files_may_be_replaced():
    """A bundle's folder with formats in it is replaced by a new one; nobody's other files are."""
    names = {Path(name).parts[0] for one in FORMATS.values() for name in one.files}
    assert names <= bundle.MEMBERS


def test_an_agreement_of_another_version_is_one_sentence(folder, tmp_path):
    """Neither shown nor published, but no hindrance to saving or to verifying again."""
    whole = json.loads((folder / bundle.AGREEMENT).read_text())
    row = whole["runtimes"]["onnx"]
    rows = [
        {"title": "ONNX Runtime"},
        {**row, "same_tensor": 5},
        {**row, "same_tensor": {**row["same_tensor"], "probability": None}},
        {**row, "same_tensor": {**row["same_tensor"], "probability": float("nan")}},
        {**row, "same_file": {**row["same_file"], "turned_photo": "0"}},
        {**row, "versions": []},
    ]
    broken = [{**whole, "runtimes": {**whole["runtimes"], "onnx": wrong}} for wrong in rows]
    broken += [{"runtimes": {}}, {**whole, "runtimes": []}, {**whole, "files": []}, {**whole, "largest_photo": None}]
    for wrong in broken:
        (folder / bundle.AGREEMENT).write_text(json.dumps(wrong))
        with pytest.raises(BundleError, match="not what this version writes; run .* --photos FOLDER"):
            staging.prepare(folder, tmp_path / "out", "tester/tiny")
    assert read_agreement(ImageClassifier.from_pretrained(folder).save_pretrained(tmp_path / "saved")) is None
    formats, _ = staging.choose(folder)
    assert not (staging.stage(folder, tmp_path / "staged", formats) / bundle.AGREEMENT).exists()


def test_a_left_out_format_leaves_nothing_behind(folder, tmp_path):
    """No file, no key in the config, and the card says so."""
    out = staging.prepare(folder, tmp_path / "out", "tester/tiny", without=["keras-folder", "litert"])
    assert not (out / "litert").exists() and not (out / "model.weights.h5").exists()
    assert not KERAS_KEYS & json.loads((out / bundle.CONFIG).read_text()).keys()
    found = read_agreement(out)
    assert list(found.runtimes) == ["keras", "onnx", "openvino"]
    assert found.left_out["litert"] == staging.ON_REQUEST
    assert staging.ON_REQUEST in (out / bundle.CARD).read_text()


def test_an_export_promises_only_what_it_holds(folder, tmp_path):
    """Its card and agreement speak of the formats that are there; where a file is another, there is no agreement."""
    left_out = staging.export(folder, tmp_path / "out", without=["litert"])
    assert left_out["litert"] == staging.ON_REQUEST
    found = read_agreement(tmp_path / "out")
    assert list(found.runtimes) == ["keras", "keras-folder", "onnx"]
    assert "### LiteRT" not in (tmp_path / "out" / bundle.CARD).read_text()
    change_agreement(folder, lambda found: found["files"].update({bundle.ONNX: "0" * 64}))
    staging.export(folder, tmp_path / "changed")
    assert read_agreement(tmp_path / "changed") is None


def test_what_was_never_verified_is_not_published(bundle_2, tmp_path):
    """The sentence names the command."""
    with pytest.raises(BundleError, match="never verified.*python -m hub verify"):
        staging.prepare(bundle_2, tmp_path / "out", "tester/tiny")
    with pytest.raises(BundleError, match="never verified"):
        ImageClassifier.from_pretrained(bundle_2).push_to_hub("tester/tiny")


def test_a_runtime_that_disagrees_is_not_published(folder, tmp_path):
    """Above 1e-4 in a probability nothing goes out, whoever asks."""
    change_agreement(folder, lambda found: found["runtimes"]["litert"]["same_tensor"].update(probability=2e-4))
    assert len(failures(read_agreement(folder))) == 1
    with pytest.raises(BundleError, match=r"LiteRT.*: probability differs from Keras by .*more than 0\.0001"):
        staging.prepare(folder, tmp_path / "out", "tester/tiny")


def test_evidence_is_held_to_its_own_size(folder):
    """Cells of ±20 logits are rounded at their size; the limit grows with the largest cell."""
    limit = 1e-4 * max(1, read_agreement(folder).largest_evidence)
    for factor, wrong in ((0.9, 0), (1.1, 1)):
        far = {"evidence": factor * limit}
        change_agreement(folder, lambda found, far=far: found["runtimes"]["onnx"]["same_tensor"].update(far))
        assert len(failures(read_agreement(folder))) == wrong


def test_what_changed_since_it_was_verified_is_not_published(folder, tmp_path):
    """Another ONNX file under the old agreement is noticed by its hash."""
    graph = onnx.load(folder / bundle.ONNX)
    graph.producer_name = "somebody else"
    onnx.save(graph, folder / bundle.ONNX)
    with pytest.raises(BundleError, match="onnx/model.onnx is not the file that was verified"):
        staging.prepare(folder, tmp_path / "out", "tester/tiny")


def test_a_format_that_was_not_compared_is_not_published(folder, tmp_path):
    """A row that is missing is as good as one that disagrees."""
    change_agreement(folder, lambda found: found["runtimes"].pop("litert"))
    with pytest.raises(BundleError, match="was verified without litert"):
        staging.prepare(folder, tmp_path / "out", "tester/tiny")
    staging.prepare(folder, tmp_path / "out", "tester/tiny", without=["litert"])


def some_answers(**change) -> Answers:
    """Three photos and the two more, all answered alike."""
    arrays = {"logits": np.ones((5, 2)), "evidence": np.ones((5, 4, 4, 2)), "files": np.full((5, 2), 0.5)}
    return Answers(**{**arrays, **change}, versions={})


def test_an_answer_that_is_no_number_is_named():
    """NaN in a logit or in a cell of evidence: no table could show it, so the sentence does."""
    for name in ("logits", "evidence"):
        wrong = getattr(some_answers(), name).copy()
        wrong[1] = np.nan
        with pytest.raises(BundleError, match="LiteRT answers NaN or infinity for 1 of 5 photos"):
            verify._check_finite(FORMATS["litert"], some_answers(**{name: wrong}))


def test_a_photo_that_a_library_cannot_read_is_counted():
    """And the others are compared; where it reads none, that is a refusal."""
    files = np.full((5, 2), 0.5)
    files[1] = np.nan
    rows = {"keras": some_answers(), "litert": some_answers(files=files)}
    row = verify._row(FORMATS["litert"], rows, 3)
    assert row.same_file.unread == 1 and row.same_file.probability == 0
    rows["litert"] = some_answers(files=np.full((5, 2), np.nan))
    with pytest.raises(BundleError, match="LiteRT could read none of the photos"):
        verify._row(FORMATS["litert"], rows, 3)


def test_another_interpreter_gets_this_package_and_nothing_beside_it(tmp_path):
    """What lies beside an installed `hub` was made for another Python."""
    look = "\nimport importlib.util; print(sys.modules['hub'].__file__, importlib.util.find_spec('training'))"
    code = WORKER.replace("from hub.formats.worker import main\nmain()", look)
    assert code != WORKER
    done = subprocess.run([sys.executable, "-c", code, str(HUB)], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == [str(HUB / "__init__.py"), "None"], done.stderr


@pytest.mark.parametrize("runtime", ["keras", "litert", "openvino"])
@pytest.mark.parametrize("change", [{"id2label": {str(k): f"l{k}" for k in range(4)}}, {"image_size": 48}])
def test_a_model_that_is_not_the_configs_is_refused(runtime, change, staged, tmp_path):
    """Whatever answers: names for labels that the model does not have would be wrong answers."""
    folder = shutil.copytree(staged, tmp_path / "bundle")
    config = json.loads((folder / bundle.CONFIG).read_text())
    (folder / bundle.CONFIG).write_text(json.dumps({**config, **change}))
    with pytest.raises(BundleError, match="holds another model|cannot run the model|should turn image"):
        ImageClassifier.from_pretrained(folder, runtime=runtime)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id2label": {"0": "cat", "1": "dog\n# x"}}, "line break or another control character"),
        ({"evidence": {"grid": [10**9, "a"]}}, "not two numbers of cells"),
        ({"backbone": "x"}, "backbone entry"),
        ({"model_type": 3}, "no line of text|not one line of text"),
        ({"quantization_config": {}}, "which changes the answers"),
    ],
)
def test_a_config_that_would_be_shown_or_misread_is_refused(change, words, folder):
    """It goes into the card, labels.txt and the terminal."""
    config = json.loads((folder / bundle.CONFIG).read_text())
    (folder / bundle.CONFIG).write_text(json.dumps({**config, **change}))
    for use in (staging.card, ImageClassifier.from_pretrained):
        with pytest.raises(BundleError, match=words):
            use(folder)


def test_a_runtime_that_is_not_installed_is_named(bundle_2, photo_files, tmp_path):
    """What lacks, what installs it, and the two ways around it; nothing is written."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')  # an interpreter without any package
    bare.chmod(0o755)
    with pytest.raises(BundleError, match=r"LiteRT is not installed.*ai_edge_litert.*--using.*--without litert"):
        verify.verify(bundle_2, list(photo_files.iterdir()), using={"litert": str(bare)})
    assert read_agreement(bundle_2) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"without": ["onxn"]}, "no runtime onxn; did you mean onnx"),
        ({"without": ["keras"]}, "model.keras is part of every bundle"),
        ({"also": ["transformers"]}, "Transformers was asked for, but: .*architecture"),
        ({"using": {"torch": "/usr/bin/python3"}}, "no runtime torch"),
    ],
)
def test_silly_choices_are_one_sentence(options, words, bundle_2, photo_files):
    """Names that are none, parts that cannot go, formats that cannot be."""
    with pytest.raises(Refusal, match=words):
        verify.verify(bundle_2, list(photo_files.iterdir()), **options)


def test_no_photo_is_one_sentence(bundle_2, photo_files):
    """Nothing to compare on is not agreement."""
    with pytest.raises(BundleError, match="None of the photos"):
        verify.verify(bundle_2, [photo_files / "broken.jpg"], without=["keras-folder", "litert"])
    with pytest.raises(BundleError, match="None of the photos"):
        verify.verify(bundle_2, [], without=["keras-folder", "litert"])


def test_a_large_photo_is_taken_as_it_is(bundle_2, photo_files, tmp_path):
    """Where one of the photos has 12 megapixels, none is enlarged."""
    from PIL import Image

    large = tmp_path / "large.jpg"
    Image.open(photo_files / "0.jpg").resize((4100, 3000)).save(large)
    pictures = verify._Pictures(
        [photo_files / "1.jpg", large], ImageClassifier.from_pretrained(bundle_2)._runner, tmp_path
    )
    assert pictures.largest == LargestPhoto(4100, 3000, enlarged=False)
    assert pictures.files[2] == large and pictures.count == 2
    assert np.load(pictures.tensors).shape == (4, 32, 32, 3)
