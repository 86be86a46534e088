"""What visitors do, at a desktop's and a phone's width."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from hub import ImageClassifier


def test_a_sample_is_answered_with_probabilities_and_a_map(tab, bundle_2, pictures):
    assert tab.page.locator("h1").inner_text() == "Cat or dog?"
    tab.click_sample()
    expected = ImageClassifier.from_pretrained(bundle_2)(pictures / "my_cat.jpg")
    rows = tab.page.locator("#verdict .shares li").all_inner_texts()
    for row, answer in zip(rows, expected, strict=True):
        assert row.split()[:2] == [answer["label"], f"{100 * answer['score']:.1f}"]
    sentence = tab.page.locator("#verdict .verdict").inner_text()
    assert re.match(rf"{expected[0]['label'].capitalize()}, \d\d\.\d %\.\s+The strongest evidence", sentence)
    assert tab.page.locator("#label input:checked").get_attribute("value") == expected[0]["label"]
    assert tab.picture().std() > 10
    assert tab.page.locator("#picture img").get_attribute("src").endswith(".jpeg")
    assert "exact for the network’s last layer, not for pixels" in tab.page.locator("#about").inner_text()
    # On a phone as well, the answer is in the window without scrolling.
    tab.page.wait_for_function(
        "document.querySelector('#verdict .verdict').getBoundingClientRect().bottom < innerHeight"
    )


def test_the_sum_is_shown_and_adds_up(desktop_tab, bundle_2, pictures):
    desktop_tab.click_sample()
    prediction = ImageClassifier.from_pretrained(bundle_2).predict(pictures / "my_cat.jpg")
    mean = prediction.logits.max() - prediction.logits.min()
    numbers = desktop_tab.page.locator("#account b").all_inner_texts()
    assert numbers == [f"+{mean:.2f}", "log-odds", f"{100 / (1 + np.exp(-mean)):.1f}\N{NO-BREAK SPACE}%"]
    ends = desktop_tab.page.locator("#bar .ticks").inner_text().split()
    scale = ImageClassifier.from_pretrained(bundle_2).evidence_scale
    assert ends == [f"−{scale:.1f}", "0", f"+{scale:.1f}", "logits"]


def test_an_upload_is_answered(tab, tmp_path):
    Image.new("CMYK", (60, 40), (0, 120, 30, 10)).save(tmp_path / "print.jpg")
    tab.page.locator("#photo input[type=file]").set_input_files(tmp_path / "print.jpg")
    tab.wait_for_answer()
    assert "%" in tab.page.locator("#verdict").inner_text()


def test_opacity_changes_the_overlay_only(tab):
    tab.click_sample()
    shares = tab.page.locator("#verdict").inner_text()
    before = tab.picture()
    pale = tab.picture_after(lambda: tab.page.locator("#opacity input[type=range]").fill("0"))
    strong = tab.picture_after(lambda: tab.page.locator("#opacity input[type=range]").fill("1"))
    assert 1 < np.abs(before - pale).mean() < np.abs(strong - pale).mean()
    assert tab.page.locator("#verdict").inner_text() == shares


def test_the_other_label_flips_the_sign(tab):
    tab.click_sample()
    page = tab.page
    plain = tab.picture_after(lambda: page.locator("#opacity input[type=range]").fill("0"))
    first = tab.picture_after(lambda: page.locator("#opacity input[type=range]").fill("1"))
    sums = page.locator("#account b").first.inner_text()
    other = page.locator("#label input:not(:checked)")
    name = other.get_attribute("value")
    second = tab.picture_after(other.check)
    warmth = [(shown - plain)[..., 0] - (shown - plain)[..., 2] for shown in (first, second)]
    assert np.corrcoef(warmth[0].ravel(), warmth[1].ravel())[0, 1] < -0.9
    page.wait_for_function(
        "(text) => document.querySelector('#account b').innerText === text", arg=sums.replace("+", "−")
    )
    assert page.locator("#bar .ends span").last.inner_text() == f"speaks for {name}"


def test_the_grad_cam_view_is_labelled_and_positive(tab):
    tab.click_sample()
    page = tab.page
    plain = tab.picture_after(lambda: page.locator("#opacity input[type=range]").fill("0"))
    tab.picture_after(lambda: page.locator("#opacity input[type=range]").fill("1"))
    shown = tab.picture_after(lambda: page.locator("#view").get_by_text("Grad-CAM").click())
    change = (shown - plain)[..., 1]  # full red has no green, so what is covered loses it
    assert change.mean() < 0
    assert (change > 25).mean() < 0.01  # but for what JPEG does
    assert page.locator("#bar .ticks").inner_text().startswith("0")
    assert "Grad-CAM" in page.locator("#about").inner_text()
    assert page.locator("#picture img").get_attribute("alt").startswith("The picture, coloured by Grad-CAM for")
    assert not page.locator("#account").is_visible()


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
    tab.page.get_by_label("Capture from camera").click()
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
    page.get_by_label("Paste from clipboard").click()
    desktop_tab.wait_for_answer()


def test_everything_is_named_and_reached_by_keyboard(desktop_tab):
    page = desktop_tab.page
    page.locator("#samples button").first.focus()
    page.keyboard.press("Enter")
    desktop_tab.wait_for_answer()
    assert page.locator("#samples button").first.inner_text().strip() == "my cat"
    for name in ("Your picture", "The map speaks for", "View", "Opacity of the colours"):
        assert page.get_by_text(name).first.is_visible()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, img")].filter((element) => {
            const named = element.innerText || element.ariaLabel || element.title || element.labels?.length
                || element.hasAttribute("alt") || element.querySelector("img[alt]:not([alt=''])");
            return element.checkVisibility() && !named;
        }).map((element) => element.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []


def test_dark_mode_is_legible(browser, address):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    page = context.new_page()
    page.goto(address, wait_until="domcontentloaded")
    page.locator("#samples button").first.click()
    page.locator("#verdict .verdict").wait_for()
    page.wait_for_function("document.querySelector('#about p')?.checkVisibility()")
    ratios = page.evaluate(
        """() => {
            const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
            const light = (colour) => {
                const [r, g, b] = numbers(colour).slice(0, 3)
                    .map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const background = (element) => {
                for (; element; element = element.parentElement) {
                    const colour = getComputedStyle(element).backgroundColor;
                    if ((numbers(colour)[3] ?? 1) === 1) return colour;
                }
                return "rgb(255, 255, 255)";
            };
            const texts = "#title h1, #title p, #verdict .verdict, #verdict strong, .shares li, .bar span,"
                + ".account span, .account b, #about p, #footer p, #samples span, #label span, #opacity span";
            const seen = [...document.querySelectorAll(texts)].filter((element) => element.checkVisibility());
            return seen.map((element) => {
                const pair = [light(getComputedStyle(element).color), light(background(element))].sort((a, b) => b - a);
                return [element.outerHTML.slice(0, 80), (pair[0] + 0.05) / (pair[1] + 0.05)];
            });
        }"""
    )
    assert len(ratios) > 20
    assert [ratio for ratio in ratios if ratio[1] < 4.5] == []  # WCAG 2.2, level AA
    context.close()
