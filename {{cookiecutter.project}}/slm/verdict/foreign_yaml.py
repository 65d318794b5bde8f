"""Read YAML of a commit that nobody has reviewed: a few aliases can stand for billions of values."""

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

LARGEST_YAML = 200_000  # characters; dvc.lock has a fifth
MOST_VALUES = 20_000  # with each alias counted as what it stands for


def foreign_yaml(text: str) -> Any:
    """A document as its values.

    Raises:
        YAMLError: it is no YAML, or larger than a file of this project is.
    """
    if len(text) > LARGEST_YAML:
        raise YAMLError(f"more than {LARGEST_YAML} characters")
    try:
        # Before any value is made: an alias in a merge (`<<`) would be unfolded there.
        for count, _ in enumerate(_nodes(YAML(typ="safe").compose(text))):
            if count > MOST_VALUES:
                raise YAMLError(f"more than {MOST_VALUES} values")
        return YAML(typ="safe").load(text)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise YAMLError(f"{type(error).__name__}: {str(error)[:100]}") from None


def _nodes(root: Any) -> Iterator[Any]:
    """Every value, as often as it is meant."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        inside = getattr(node, "value", None)
        for part in inside if isinstance(inside, list) else []:
            waiting += part if isinstance(part, tuple) else [part]
