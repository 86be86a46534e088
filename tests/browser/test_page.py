"""What visitors do on the first tab, at a desktop's and a phone's width."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from hub import ImageClassifier
from hub.heatmaps import overlay, shown_map
from hub.images import open_image
from tests.browser.conftest import DESKTOP, opened


def test_a_sample_is_answered_with_probabilities_and_a_map(laid_out, bundle_2, pictures):
    assert laid_out.page.locator("h1").inner_text() == "Cat or dog?"
    laid_out.click_sample()
    expected = ImageClassifier.from_pretrained(bundle_2)(pictures / "my_cat.jpg")
    rows = laid_out.page.locator("#verdict .shares li").all_inner_texts()
    for row, answer in zip(rows, expected, strict=True):
        assert row.split()[:2] == [answer["label"], f"{100 * answer['score']:.1f}"]
    sentence = laid_out.page.locator("#verdict .verdict").inner_text()
    assert re.match(rf"{expected[0]['label'].capitalize()}, \d\d\.\d\s%\.\s+The strongest evidence", sentence)
    assert laid_out.page.locator("#label input:checked").get_attribute("value") == expected[0]["label"]
    assert "exact for the network’s last layer, not for pixels" in laid_out.page.locator("#about").inner_text()
    # On a phone as well, the answer is in the window without scrolling.
    laid_out.page.wait_for_function(
        "document.querySelector('#verdict .verdict').getBoundingClientRect().bottom < innerHeight"
    )


def test_what_the_browser_mixes_is_the_overlay(desktop_tab, bundle_2, pictures):
    desktop_tab.click_sample()
    classifier = ImageClassifier.from_pretrained(bundle_2)
    prediction = classifier.predict(pictures / "my_cat.jpg")
    values = shown_map(prediction.evidence, classifier.labels.index(prediction.label))
    for opacity in (0.65, 1.0):
        desktop_tab.set_opacity(f"{opacity:g}")
        expected = overlay(open_image(pictures / "my_cat.jpg"), values, classifier.evidence_scale, opacity)
        difference = np.abs(desktop_tab.picture() - np.asarray(expected.resize((160, 106)), np.int16))
        assert difference.mean() < 3  # the browser shrinks otherwise


def test_the_sum_is_shown_and_adds_up(desktop_tab, bundle_2, pictures):
    desktop_tab.click_sample()
    prediction = ImageClassifier.from_pretrained(bundle_2).predict(pictures / "my_cat.jpg")
    mean = prediction.logits.max() - prediction.logits.min()
    numbers = desktop_tab.page.locator("#account b").all_inner_texts()
    assert numbers == [f"+{mean:.2f}", "log-odds", f"{100 / (1 + np.exp(-mean)):.1f}\N{NO-BREAK SPACE}%"]
    ends = desktop_tab.page.locator("#figure .ticks").inner_text().split()
    scale = ImageClassifier.from_pretrained(bundle_2).evidence_scale
    assert ends == [f"−{scale:.1f}", "0", f"+{scale:.1f}", "logits"]


def test_an_upload_is_answered(tab, tmp_path):
    Image.new("CMYK", (60, 40), (0, 120, 30, 10)).save(tmp_path / "print.jpg")
    tab.page.locator("#photo input[type=file]").set_input_files(tmp_path / "print.jpg")
    tab.wait_for_answer()
    assert "%" in tab.page.locator("#verdict").inner_text()


def test_opacity_and_view_are_the_browsers_own_affair(laid_out):
    laid_out.click_sample()
    page, requests = laid_out.page, []
    page.on("request", lambda request: requests.append(request.url))
    before = laid_out.picture()
    laid_out.set_opacity("0")
    plain = laid_out.picture()
    laid_out.set_opacity("1")
    assert 1 < np.abs(before - plain).mean() < np.abs(laid_out.picture() - plain).mean()

    page.locator("#view").get_by_text("Side by side").click()
    alone, mixed = (page.locator(f"#figure .{part}") for part in ("plain", "mixed"))
    alone.wait_for()
    assert alone.bounding_box()["x"] + alone.bounding_box()["width"] <= mixed.bounding_box()["x"]

    page.locator("#view").get_by_text("Swipe").click()
    cut = page.get_by_role("slider", name="Swipe between the picture and its map")
    cut.focus()
    page.keyboard.press("Home")  # the whole map
    page.wait_for_function("getComputedStyle(document.querySelector('#figure .mixed')).clipPath.includes('0%')")
    assert alone.bounding_box() == mixed.bounding_box()
    box = cut.bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.3 * box["height"])
    page.wait_for_function(
        """() => {
            const left = getComputedStyle(document.querySelector('#figure .mixed')).clipPath.match(/([\\d.]+)%/);
            return left && Math.abs(left[1] - 75) < 6;
        }"""
    )
    assert [url for url in requests if not url.startswith(("data:", "blob:")) and "heartbeat" not in url] == []


def test_the_view_stays_for_the_next_picture(desktop_tab, tmp_path):
    desktop_tab.click_sample()
    desktop_tab.set_opacity("0.3")
    desktop_tab.page.locator("#view").get_by_text("Side by side").click()
    desktop_tab.map_after(lambda: desktop_tab.page.locator("#samples button").nth(2).click())
    desktop_tab.page.wait_for_function("document.querySelector('#figure').dataset.view === 'beside'")
    opacity = "getComputedStyle(document.querySelector('#figure img.map')).opacity"
    assert desktop_tab.page.evaluate(opacity) == "0.3"


def test_the_other_label_flips_the_sign(tab):
    tab.click_sample()
    page = tab.page
    tab.set_opacity("0")
    plain = tab.picture()
    tab.set_opacity("1")
    first = tab.picture()
    sums = page.locator("#account b").first.inner_text()
    other = page.locator("#label input:not(:checked)")
    name = other.get_attribute("value")
    tab.map_after(other.check)
    second = tab.picture()
    warmth = [(shown - plain)[..., 0] - (shown - plain)[..., 2] for shown in (first, second)]
    assert np.corrcoef(warmth[0].ravel(), warmth[1].ravel())[0, 1] < -0.9
    page.wait_for_function(
        "(text) => document.querySelector('#account b').innerText === text", arg=sums.replace("+", "−")
    )
    assert page.locator("#figure .ends span").last.inner_text() == f"evidence for {name}"


@pytest.mark.parametrize(("method", "logits"), [("Grad-CAM", True), ("Occlusion", True), ("Score-CAM", False)])
def test_another_method_is_shown_beside_the_evidence(desktop_tab, method, logits):
    desktop_tab.click_sample()
    page = desktop_tab.page
    page.locator("#method").get_by_text(method, exact=True).click()
    page.locator("#figure figure").nth(1).wait_for()
    titles = page.locator("#figure figcaption").all_inner_texts()
    assert titles[0].startswith("Evidence for ") and titles[1].startswith(f"{method} for ")
    second = page.locator("#figure figure").nth(1).inner_text()
    assert "Cost: " in second
    assert ("logits" in second) == logits
    page.locator("#method").get_by_text("None").click()
    page.wait_for_function("document.querySelectorAll('#figure figure').length === 1")


def test_the_picture_and_the_numbers_can_be_saved(desktop_tab, bundle_2, pictures, tmp_path):
    desktop_tab.click_sample()
    with desktop_tab.page.expect_download() as saved:
        desktop_tab.page.get_by_role("button", name="Save the picture (PNG)").click()
    saved.value.save_as(tmp_path / "evidence.png")
    assert Image.open(tmp_path / "evidence.png").size == (451, 300)
    with desktop_tab.page.expect_download() as saved:
        desktop_tab.page.get_by_role("button", name="Save the numbers (CSV)").click()
    saved.value.save_as(tmp_path / "evidence.csv")
    table = np.genfromtxt(tmp_path / "evidence.csv", delimiter=",", skip_header=1)
    prediction = ImageClassifier.from_pretrained(bundle_2).predict(pictures / "my_cat.jpg")
    np.testing.assert_array_equal(np.float32(table[:, 2:4]), prediction.evidence.reshape(-1, 2))


def test_text_named_jpg_gets_one_sentence(tab, tmp_path):
    tab.click_sample()
    (tmp_path / "notes.jpg").write_text("This is a shopping list.\n" * 20)
    tab.page.get_by_label("Remove Image").click()
    tab.page.locator("#verdict .hint").wait_for()
    tab.page.locator("#photo input[type=file]").set_input_files(tmp_path / "notes.jpg")
    refusal = tab.page.locator("#verdict .refusal")
    refusal.wait_for()
    assert refusal.inner_text() == "notes.jpg is text, not a picture; save it as JPEG or PNG and try again."
    assert not tab.page.locator("#views").is_visible()
    tab.click_sample()  # and the page goes on


def test_a_webcam_snapshot_is_answered(tab):
    tab.page.locator("#photo").get_by_label("Capture from camera").click()
    tab.page.get_by_text("Click to Access Webcam").click()
    tab.page.wait_for_function("document.querySelector('#photo video')?.videoWidth > 0")
    tab.page.get_by_label("capture photo").click()
    tab.wait_for_answer()


def test_a_pasted_picture_is_answered(desktop_tab):
    page = desktop_tab.page
    page.evaluate(
        """async () => {
            const canvas = document.createElement("canvas");
            canvas.getContext("2d").fillRect(20, 20, 90, 60);
            const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }"""
    )
    page.locator("#photo").get_by_label("Paste from clipboard").click()
    desktop_tab.wait_for_answer()


def test_everything_is_named_and_reached_by_keyboard(desktop_tab):
    page = desktop_tab.page
    page.locator("#samples button").first.focus()
    page.keyboard.press("Enter")
    desktop_tab.wait_for_answer()
    assert page.locator("#samples button").first.inner_text().strip() == "my cat"
    assert page.locator("#samples button").nth(2).inner_text().strip() == "Cheetah"
    for name in ("Your picture", "Show the map for", "View", "Opacity of the colours", "Compare with another method"):
        assert page.get_by_text(name).first.is_visible()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, img")].filter((element) => {
            const named = element.innerText || element.ariaLabel || element.title || element.labels?.length
                || element.hasAttribute("alt") || element.querySelector("img[alt]:not([alt=''])");
            return element.checkVisibility() && !named;
        }).map((element) => element.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []


@pytest.mark.parametrize(
    ("locale", "words"),
    [
        ("de-DE", ["Cat oder dog?", "Ausprobieren", "Oder ein Beispiel anklicken", "Gepard", "Deckkraft der Farben",
                   "spricht für", "Die stärksten Belege", "Mittel der 16 Zellen", "Log-Odds"]),
        ("es-MX", ["¿Cat o dog?", "Probar", "O pulsa un ejemplo", "Guepardo", "Opacidad de los colores",
                   "a favor de", "La evidencia más fuerte", "media de las 16 celdas"]),
    ],
)  # fmt: skip
def test_the_page_speaks_the_browsers_language(browser, address, locale, words):
    for tab in opened(browser, address, DESKTOP, locale=locale):
        tab.click_sample()
        text = tab.page.locator("body").inner_text()
        assert [word for word in words if word not in text] == []
        assert re.search(r"\d,\d\s%", text)
        assert "__i18n__" not in tab.page.locator(".gradio-container").first.evaluate("element => element.outerHTML")


def test_dark_mode_is_legible(browser, address):
    for tab in opened(browser, address, DESKTOP, color_scheme="dark"):
        tab.click_sample()
        ratios = tab.contrasts(
            "#title h1, #title p, .verdict, .verdict strong, .shares li, .bar span, .account span, .account b,"
            "#about p, #footer p, #samples span, #label span, #opacity span, #method span, .save button"
        )
        assert len(ratios) > 25
        assert [ratio for ratio in ratios if ratio[1] < 4.5] == []  # WCAG 2.2, level AA
