"""What a recipe may say of a model."""

import pytest
from pydantic import ValidationError

from stages.models.settings import ModelSource

REFUSED = {
    "an unknown key": ({"model": "org/name", "layers": [1]}, "Extra inputs"),
    "an empty name": ({"model": ""}, "at least 1 character"),
    "a negative layer": ({"model": "org/name", "drop_layers": [-1]}, "greater than or equal to 0"),
    "a layer named twice": ({"model": "org/name", "drop_layers": [3, 1, 3]}, "layer 3 is named twice"),
}


@pytest.mark.parametrize(("settings", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_mistake_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ModelSource.model_validate(settings)


def test_the_order_of_dropped_layers_does_not_matter() -> None:
    assert ModelSource(model="m", drop_layers=(3, 1)) == ModelSource(model="m", drop_layers=(1, 3))
