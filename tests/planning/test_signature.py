"""help(), notebooks and editors show every setting with its type, its default and its meaning."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

import tilepipe as tp
from tilepipe.planning.check_settings import KINDS
from tilepipe.planning.settings import Choices, Request, Settings

FUNCTIONS: dict[Callable[..., object], type] = {tp.segment: Settings, tp.plan: Settings, tp.predict: Choices}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_setting_is_named_with_type_default_and_meaning(function: Callable[..., object]) -> None:
    own, text = inspect.signature(function).parameters, inspect.getdoc(function) or ""
    for name in FUNCTIONS[function].__annotations__:
        if name == "region" and function is tp.predict:
            continue
        shown = own[name]
        assert shown.kind == inspect.Parameter.KEYWORD_ONLY
        assert shown.annotation
        assert f"\n    {name}: " in text
    assert not any(each.kind == inspect.Parameter.VAR_KEYWORD for each in own.values())


def test_settings_are_those_that_are_checked() -> None:
    assert set(Settings.__annotations__) == set(KINDS)


def test_defaults_are_those_of_a_request() -> None:
    own, request = inspect.signature(tp.segment).parameters, Request.of({})
    for name in ("tolerance", "max_cost", "block", "tile_timeout", "grid", "mask", "workers"):
        assert own[name].default == getattr(request, name)
    assert own["tile"].annotation == "int | Literal['auto'] | None"
    assert own["tile"].default is None


@pytest.mark.parametrize("useless", [{"workers": 5}, {"of": ["cog"]}, {"overwrite": True}, {"min_area": 3.0}])
def test_predict_refuses_what_it_cannot_use(useless: dict[str, object]) -> None:
    name = next(iter(useless))
    with pytest.raises(tp.TilepipeError, match=f"no use for '{name}'"):
        tp.predict("pipelines/sample/Amazon_24_20.tif", "forest", **useless)  # type: ignore[arg-type]
