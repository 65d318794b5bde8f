"""A held-out request that is trained on is found, also when somebody mistyped it."""

import pytest

from slm.quality import NEAR, Index

INDEX = Index([("test:1", "please lock the front door"), ("test:2", "set the volume to 20"), ("test:3", "do the laundry")])


@pytest.mark.parametrize(
    "text",
    [
        "Please, lock the front door!",
        "please lck the front door",  # a letter missing
        "please lockk the front door",  # one too many
        "please luck the front door",  # another one
        "please lokc the front door",  # two swapped
        "do the landry",  # too short for word 3-grams to show
    ],
)
def test_a_copy_with_one_typo_is_the_same(text: str):
    assert INDEX.nearest(text)[1] == 1.0


@pytest.mark.parametrize("text", ["set the volume to 21", "please lock the back door", "do the dishes", "unlock the front door"])
def test_another_request_is_not(text: str):
    assert INDEX.nearest(text)[1] <= NEAR


def test_only_earlier_ones_are_looked_at():
    assert INDEX.nearest("do the landry", before=3) == ("test:3", 1.0)
    assert INDEX.nearest("do the landry", before=2)[1] <= NEAR
