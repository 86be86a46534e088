"""Every text is there in every language, with the same values in it."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from markupsafe import Markup

from space import languages
from space.languages import LANGUAGES, Say

SPACE = Path(languages.__file__).parents[1]


class Request:
    """What `of` reads of a request."""

    def __init__(self, **headers: str):
        self.headers = headers


def test_every_text_stands_in_every_language_with_the_same_values():
    for name, entry in languages.texts().items():
        if name.startswith("written."):  # made of the others, with their values in them
            continue
        assert set(entry) == set(LANGUAGES), name
        fields = {
            code: {field for _, field, *_ in string.Formatter().parse(text) if field} for code, text in entry.items()
        }
        tags = {code: sorted(re.findall(r"</?\w+", text)) for code, text in entry.items()}
        assert all(entry.values()), name
        assert all(found == fields["en"] for found in fields.values()), name
        assert all(found == tags["en"] for found in tags.values()), name


def test_every_text_that_the_code_names_is_there():
    code = "\n".join(path.read_text(encoding="utf-8") for path in SPACE.rglob("*.py"))
    named = set(re.findall(r'(?:say|plain|fixed)\(\s*"(\w+\.\w+)"', code))
    assert len(named) > 30
    assert named <= set(languages.texts())


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("fr-CH, fr;q=0.9, es;q=0.5, en;q=0.3", "es"),
        ("en;q=0.2, DE;q=0.8", "de"),
        ("fr, ja", "en"),
        ("de;q=0, es", "es"),
        ("*;q=x,,;q=, 1;q=nan;q=2", "en"),
        ("x" * 100_000, "en"),
    ],
)
def test_the_browser_names_the_language(header, language):
    assert languages.voice_for(Request(**{"accept-language": header})).language == language


def test_no_request_is_english():
    assert languages.voice_for(None).language == "en"


def test_values_are_escaped_but_for_html():
    say = Say("en")
    assert say("words.logit_of", label="<b>{{x}}") == "logit of &lt;b&gt;&#123;&#123;x}}"
    assert say("words.logit_of", label=Markup("<b>")) == "logit of <b>"


def test_numbers_follow_the_language():
    assert [Say(code).number("98.7") for code in LANGUAGES] == ["98.7", "98,7", "98,7"]


def test_a_text_about_the_model_is_written_in_every_language():
    languages.written(lambda say: say("words.and", first="<cat>", last="dog"))
    made = [entry for name, entry in languages.texts().items() if name.startswith("written.")]
    assert {"en": "&lt;cat&gt; and dog", "de": "&lt;cat&gt; und dog", "es": "&lt;cat&gt; y dog"} in made
    with pytest.raises(KeyError):
        languages.fixed("try_it.no_such_text")
