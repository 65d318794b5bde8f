"""The task of benchmarks/chains.py: the same requests in three languages, and held-out ones that share no template and no pair of values with training."""

import re
import unicodedata

import pytest

from benchmarks.chains import FUNCTIONS, HOURS, LANGUAGES, PROMPTS, SIZES, STOPS, TEMPLATES, drawn, read, record


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_all_words_once_and_templates_with_both_slots(language: str):
    words = read(language)
    assert tuple(words["labels"]) == tuple(words["templates"]) == FUNCTIONS
    assert len(set(words["hours"])) == len(words["hours"]) == HOURS and len(set(words["stops"])) == len(words["stops"]) == STOPS
    templates = [t for said in words["templates"].values() for t in said]
    assert [len(said) for said in words["templates"].values()] == [TEMPLATES] * 3 and len(set(templates)) == len(templates)
    values = {*words["hours"], *words["stops"]} - {"छ"}  # six, and "is"
    for template in templates:
        assert sorted(re.findall(r"{.*?}", template)) == ["{hour}", "{stop}"], template
        rest = re.sub(r"{.*?}", " ", template)
        assert not values & set(rest.split()) and not any(v in rest for v in values if language == "chinese"), template
        assert unicodedata.normalize("NFC", template) == template and (language != "chinese" or " " not in template)


def test_held_out_requests_share_no_template_and_no_pair_with_training():
    splits = drawn()
    assert {name: len(draws) for name, draws in splits.items()} == {n: size[0] for n, size in SIZES.items()} | {"prompts": PROMPTS}
    trained = splits["train"] + splits["prompts"]
    for held, seen in (("test", trained), ("validation", trained), ("test", splits["validation"])):
        assert not {d[1] for d in splits[held]} & {d[1] for d in seen}
        assert not {d[2:] for d in splits[held]} & {d[2:] for d in seen}
    assert {d[2] for d in splits["train"]} == set(range(HOURS)) and {d[3] for d in splits["train"]} == set(range(STOPS))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_request_is_there_twice(language: str):
    words = read(language)
    asked = [record(words, "", draw, False)["messages"][0]["content"] for draws in drawn().values() for draw in draws]
    assert len(set(asked)) == len(asked)
