"""The tab Many: drop, watch, sort, filter, look, keep, cancel."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from hub import ImageClassifier
from hub.batch import answers, columns, csv_line, row
from space.languages import Say
from space.many import margin_of, verdict
from tests.browser.conftest import PHONE, opened
from tests.space.conftest import served

ROWS = "#many-table tbody tr"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photos) -> Path:
    """36 photos and a text of that name, and a zip with three photos and a text."""
    folder = tmp_path_factory.mktemp("many")
    for number, pixels in enumerate(photos[:36]):
        Image.fromarray(pixels).resize((90, 60)).save(folder / f"{number:02}.png")
    (folder / "36.png").write_text("Dear diary")
    with zipfile.ZipFile(folder / "trip.zip", "w") as file:
        for number, pixels in enumerate(photos[36:39]):
            data = io.BytesIO()
            Image.fromarray(pixels).resize((90, 60)).save(data, "PNG")
            file.writestr(f"trip/{number}.png", data.getvalue())
        file.writestr("trip/notes.txt", "Dear diary")
    return folder


def drop(tab, files: list[Path]) -> None:
    """Drop files on the tab."""
    tab.open("Many")
    tab.page.locator("#many-files input[type=file]").set_input_files(files)


def column(tab, place: int) -> list[str]:
    """The texts of a column as they stand, unreadable files left out."""
    return tab.page.locator(f"{ROWS}:not(.unreadable) > :nth-child({place})").all_inner_texts()


def test_many_pictures_are_answered_sorted_filtered_looked_at_and_kept(tab, folder, bundle_2):
    page = tab.page
    drop(tab, sorted(folder.iterdir()))
    said = page.locator("#many-table .said")
    page.wait_for_function("document.querySelector('#many-table .said')?.textContent === 'Done: 40.'")
    assert "1 (trip/notes.txt)" in page.locator("#many-table .notes").inner_text()

    classifier = ImageClassifier.from_pretrained(bundle_2)
    files = [folder / f"{number:02}.png" for number in range(36)]
    found = {path.name: classifier.predict(path) for path in files}
    # Unreadable ones first, then by doubt.
    assert page.locator(f"{ROWS}:first-child > *").all_inner_texts() == [
        "",
        "36.png",
        "36.png is text, not a picture; save it as JPEG or PNG and try again.",
    ]
    margins = [float(text) for text in column(tab, 6)]
    assert margins == sorted(margins) and len(margins) == 39
    for name, label, word in zip(column(tab, 2), column(tab, 3), column(tab, 4), strict=True):
        if name in found:
            assert label == found[name].label
            assert word == Say("en").plain(f"many.{verdict(margin_of(found[name].probabilities))}")
    labels = column(tab, 3)
    counts = page.locator("#many-table .counts li").all_inner_texts()
    assert {f"{labels.count(label)} {label}" for label in set(labels)} | {"1 unreadable"} <= set(counts)

    page.get_by_role("button", name="File", exact=True).click()
    assert column(tab, 2) == sorted(column(tab, 2))
    page.get_by_role("button", name="File", exact=True).click()
    assert column(tab, 2) == sorted(column(tab, 2), reverse=True)
    assert page.get_by_role("columnheader", name="File").get_attribute("aria-sort") == "descending"
    page.get_by_role("combobox", name="Show").select_option("Only unreadable")
    assert page.locator(f"{ROWS} .file").all_inner_texts() == ["36.png"]
    page.get_by_role("combobox", name="Show").select_option("Everything")
    page.get_by_label("File name contains").fill("TRIP/")
    assert page.locator("#many-table .shown").inner_text() == "3 of 40 rows"
    page.get_by_label("File name contains").fill("")
    page.get_by_role("combobox", name="Label").select_option(labels[0])
    assert set(column(tab, 3)) == {labels[0]}

    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "answers.csv"
    lines = list(csv.DictReader(download.value.path().open(newline="")))
    by_hub = [one for batch in answers(classifier, [*files, folder / "36.png"]) for one in batch]
    names = columns(classifier)
    for line, one in zip(lines[:32], by_hub[:32], strict=True):  # the same batch: the same to the last bit
        expected = {**row(one, names, classifier.labels), "file": one.file.name}
        assert list(csv.reader([csv_line(list(line.values()))])) == list(
            csv.reader([csv_line(list(expected.values()))])
        )
    assert [line["file"] for line in lines[36:]] == ["36.png", "trip/0.png", "trip/1.png", "trip/2.png"]

    opener = page.locator(f"{ROWS} button").first
    name = column(tab, 2)[0]
    opener.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("heading").inner_text() == name
    page.wait_for_function("[...document.querySelectorAll('dialog img')].every((image) => image.naturalWidth > 0)")
    assert "Red is evidence for" in dialog.inner_text()
    photo, shown = dialog.locator("img.photo").bounding_box(), dialog.locator("img.map").bounding_box()
    assert photo == shown and photo["width"] / photo["height"] == pytest.approx(1.5, rel=0.02)
    dialog.get_by_label("Opacity of the colours").fill("0.2")
    assert dialog.locator("img.map").evaluate("(map) => getComputedStyle(map).opacity") == "0.2"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert opener.evaluate("(button) => button === document.activeElement")
    assert said.inner_text() == "Done: 40."


def test_cancelling_and_a_busy_server_keep_what_is_done(desktop_tab, folder, tmp_path):
    page = desktop_tab.page
    files = []
    for number in range(200):
        files.append(tmp_path / f"{number:03}.png")
        files[-1].write_bytes((folder / f"{number % 36:02}.png").read_bytes())
    page.evaluate(
        """() => new MutationObserver((_, observer) => {
            if (!document.querySelector("#many-table tbody tr")) return;
            observer.disconnect();
            document.querySelector("#many-table .cancel").click();
        }).observe(document.body, { childList: true, subtree: true })"""
    )
    drop(desktop_tab, files)
    page.get_by_text("Cancelled.").wait_for()
    page.wait_for_timeout(300)  # for the answer that was on its way
    count = page.locator(ROWS).count()
    assert count in (32, 64)
    said = page.locator("#many-table .said").inner_text()
    assert said.startswith("Cancelled.") and f"{count} of 200" in said
    assert not page.get_by_role("button", name="Cancel").is_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    assert len(download.value.path().read_text().splitlines()) == 1 + count

    # The tab goes on, and asks again where the server was too busy to take what it asked.
    asked = []

    def busy(route):
        asked.append(route)
        if len(asked) == 2:
            route.fulfill(status=503, json={"detail": "Queue is full."})
        else:
            route.continue_()

    page.route("**/queue/join*", busy)
    drop(desktop_tab, files[:2])
    page.get_by_text("Done: 2.").wait_for()
    assert page.locator(ROWS).count() == 2
    assert len(desktop_tab.errors) == 1 and "503" in desktop_tab.errors.pop()


def test_in_german_in_the_dark_from_a_model_without_a_map(browser, classic, folder):
    with served(classic) as address:
        for tab in opened(browser, address, PHONE, locale="de-DE", color_scheme="dark"):
            tab.open("Viele")
            tab.page.locator("#many-files input[type=file]").set_input_files([folder / "00.png", folder / "36.png"])
            tab.page.get_by_text("Fertig: 2.").wait_for()
            expected = classic.predict(folder / "00.png")
            [label], [margin] = column(tab, 3), column(tab, 6)
            assert label == expected.label
            assert margin == f"{margin_of(expected.probabilities):.3f}".replace(".", ",")
            texts = "#many-about p, #many-table :is(p, li, th, td, span, button, select, input)"
            contrasts = tab.contrasts(texts)
            assert len(contrasts) > 20
            tab.page.locator(f"{ROWS}:not(.unreadable)").click()
            dialog = tab.page.get_by_role("dialog")
            assert "keine Karte" in dialog.inner_text()
            assert not dialog.locator("img.map").is_visible() and not dialog.get_by_role("slider").is_visible()
            contrasts += tab.contrasts("dialog :is(h2, p, li, span, b, button:not(:disabled))")
            assert [ratio for ratio in contrasts if ratio[1] < 4.5] == []
