"""How good is it?, and the model card, as a visitor meets them."""

from __future__ import annotations

import pytest
from PIL import Image

from hub import ImageClassifier
from hub.record import Record
from space.languages import Say
from space.quality import Quality
from tests.browser.conftest import PHONE, app, opened
from tests.records import recorded
from tests.space.attacks import ATTACKS

SPOT = """(index) => {
    const spot = document.querySelectorAll("#quality-charts .spot")[index].getBoundingClientRect();
    const chart = document.querySelectorAll("#quality-charts .chart > div > svg")[index].getBoundingClientRect();
    const scale = 360 / chart.width; // to the picture's own units
    return [(spot.x + spot.width / 2 - chart.x) * scale, (spot.y + spot.height / 2 - chart.y) * scale];
}"""
TEXTS = "#quality-tab p, #quality-tab dd, #quality-tab dt, #quality-tab th, #quality-tab td, #quality-tab figcaption"


@pytest.fixture(scope="module")
def bundle(bundle_3, photos, tmp_path_factory):
    """Three labels, a record, and a card that tries everything."""
    folder = recorded(bundle_3, tmp_path_factory.mktemp("recorded") / "three", photos)
    (folder / "figures").mkdir()
    Image.new("RGB", (40, 30), "red").save(folder / "figures/roc.png")
    mine = "# My model\n\n![ROC curve](figures/roc.png) [a link](https://example.invalid)\n\n"
    (folder / "README.md").write_text("---\nlicense: mit\n---\n" + mine + "\n\n".join(ATTACKS) + "\n\nThe end.\n")
    return folder


@pytest.fixture(scope="module")
def own_address(browser, bundle, photos, tmp_path_factory):
    """The address of app.py with that bundle and some of its photos."""
    folder = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(photos):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    with app("--model", bundle, "--photos", folder, folder=tmp_path_factory.mktemp("app")) as address:
        yield address


@pytest.fixture
def own_tab(browser, own_address, viewport):
    """A fresh tab on that page, at each width."""
    yield from opened(browser, own_address, viewport)


@pytest.fixture
def german_tab(browser, own_address):
    """A fresh tab of somebody who reads German, in the dark, on a phone."""
    options = {"locale": "de-DE", "color_scheme": "dark"}
    yield from opened(browser, own_address, PHONE, **options)


def text_of(tab, selector: str) -> str:
    return tab.page.locator(selector).inner_text()


def test_the_threshold_moves_everything(own_tab, bundle):
    page = own_tab.page
    own_tab.open("How good is it?")
    page.locator("#quality-mistakes li").first.wait_for()
    page.get_by_label("fox", exact=True).check()
    page.get_by_text("Of the", exact=False).filter(has_text="photos of fox it finds").first.wait_for()
    ranking = Quality(ImageClassifier.from_pretrained(bundle), Record(bundle)).ranking("test", 2)
    slider = page.locator("#quality-threshold input[type=range]")
    for threshold in ("0.2", "0.55"):
        slider.fill(threshold)
        counts = ranking.at(float(threshold))
        page.get_by_text(f"a probability of at least {float(threshold):.3f} for fox").wait_for()
        assert [int(cell) for cell in page.locator("#quality-numbers td").all_inner_texts()] == [
            counts.tp, counts.fn, counts.fp, counts.tn,
        ]  # fmt: skip
        across, up = page.evaluate(SPOT, 0)
        assert across == pytest.approx(54 + 291.6 * counts.false_positive_rate, abs=1.5)
        assert up == pytest.approx(294.1 - 283.9 * counts.recall, abs=1.5)
        across, up = page.evaluate(SPOT, 1)
        assert across == pytest.approx(54 + 291.6 * counts.recall, abs=1.5)
        assert up == pytest.approx(294.1 - 283.9 * counts.precision, abs=1.5)
        wrong = counts.fn + counts.fp
        page.get_by_text(f"{wrong} of 20 photos get the wrong answer").wait_for()
        assert page.locator("#quality-mistakes li").count() == min(wrong, 12)
    page.get_by_label("Validation", exact=True).check()
    page.get_by_text(Say("en").plain("quality.about_validation")).wait_for()
    assert Say("en").plain("quality.no_metrics") in text_of(own_tab, "#quality-summary")
    assert "'validation'" in text_of(own_tab, "#quality-code .cm-content")
    assert page.locator("#quality-tab .chart [role=img]").count() == 3
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_text("a probability of at least 0.549 for fox").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="predictions.parquet").click()
    assert download.value.path().read_bytes() == (bundle / "predictions.parquet").read_bytes()
    assert download.value.suggested_filename == "predictions.parquet"


def test_in_german_in_the_dark_it_can_be_read(german_tab, bundle):
    page = german_tab.page
    german_tab.open("Wie gut ist es?")
    page.locator("#quality-mistakes li").first.wait_for()
    page.wait_for_function("document.querySelector('#quality-mistakes img.photo')?.naturalWidth > 0")
    assert "Fotos mit „cat“ findet es" in text_of(german_tab, "#quality-numbers")
    assert "Falsch-positiv-Rate" in page.locator("#quality-charts svg").first.text_content()
    page.locator("#quality-tab summary").click()
    assert page.locator("#quality-tab details td").first.is_visible()
    for dark in (True, False):
        page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
        ratios = german_tab.contrasts(TEXTS)
        assert len(ratios) > 40
        assert [pair for pair in ratios if pair[1] < 4.5] == []


def test_a_strangers_card_does_nothing(german_tab):
    page = german_tab.page
    german_tab.open("Modellkarte")
    page.locator("#card .card").get_by_text("The end.").wait_for()
    assert page.locator("#card h2").inner_text() == "My model"
    assert page.locator("#card img[src]").evaluate_all("images => images.map((image) => image.naturalWidth)") == [40]
    assert page.locator("#card a[href]").first.get_attribute("target") == "_blank"
    assert page.locator("#card").locator("script, style, iframe, svg, form, input, [onclick], [onerror]").count() == 0
    for link in page.locator("#card a[href]").all():
        assert link.get_attribute("href").startswith(("https:", "mailto:"))
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None
    assert "{{{value}}}" in text_of(german_tab, "#card")
