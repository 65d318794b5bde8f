"""A held-out request that is trained on is found, also when somebody mistyped it."""

import pytest

from slm.quality import NEAR, Index, typos

INDEX = Index(
    [
        ("test:1", "please lock the front door"),
        ("test:2", "set the volume to 20"),
        ("test:3", "do the laundry"),
        ("test:4", "call at 7 am"),
        ("test:5", "a car"),
    ]
)


@pytest.mark.parametrize(
    "text",
    [
        "Please, lock the front door!",
        "please lock the frnt door",  # a letter missing
        "please lock the frontt door",  # one too many
        "plaese lock the front door",  # two swapped
        "please lock the fromt door",  # another one
        "do the landry",  # too short for word 3-grams to show
    ],
)
def test_a_copy_with_one_typo_is_the_same(text: str):
    assert INDEX.nearest(text)[1] == 1.0


@pytest.mark.parametrize(
    "text", ["set the volume to 21", "please lock the back door", "do the dishes", "unlock the front door", "call at 7 pm", "a cat"]
)
def test_another_request_is_not(text: str):
    assert INDEX.nearest(text)[1] <= NEAR


def test_only_earlier_ones_are_looked_at():
    assert INDEX.nearest("do the landry", before=3) == ("test:3", 1.0)
    assert INDEX.nearest("do the landry", before=2)[1] <= NEAR


def test_long_texts_cost_no_more_than_their_length():
    text = "word " * 2000
    assert typos(text) == {text.strip()}
