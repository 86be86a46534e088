"""Two models on the same picture."""

from __future__ import annotations

import pytest

from hub import ImageClassifier


@pytest.mark.long
def test_both_models_answer_the_same_picture(tab, bundle_2, bundle_3, pictures, tmp_path):
    tab.open("Compare")
    page = tab.page
    page.locator("#compare-photo input[type=file]").set_input_files(pictures / "my_cat.jpg")
    for side, bundle in enumerate((bundle_2, bundle_3)):
        box = page.locator(f"#side-{side}")
        box.locator("img.map").wait_for()
        text = box.inner_text()
        prediction = ImageClassifier.from_pretrained(bundle).predict(pictures / "my_cat.jpg")
        assert text.startswith(bundle.name)
        assert f"{prediction.label.capitalize()}, {100 * prediction.probabilities.max():.1f}" in text
        assert len(box.locator(".shares li").all()) == len(prediction.probabilities)

    (tmp_path / "notes.jpg").write_text("This is a shopping list.\n" * 20)
    page.locator("#compare-photo").get_by_label("Remove Image").click()
    page.locator("#side-0 img.map").wait_for(state="detached")
    page.locator("#compare-photo input[type=file]").set_input_files(tmp_path / "notes.jpg")
    page.locator("#compare-refused .refusal").wait_for()
    assert page.locator(".side img").count() == 0
