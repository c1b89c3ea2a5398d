"""Calls of torch functions are caught while a module runs: probes watch them, and statistics are put into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Call:
    """One call that is about to be made."""

    function: Callable[..., Any]
    """The torch function."""
    arguments: tuple[Any, ...]
    """Arguments that are given by place."""
    keywords: dict[str, Any]
    """Arguments that are given by name."""

    def __call__(self) -> Any:
        """Make the call and return what the function returns."""
        return self.function(*self.arguments, **self.keywords)

    @property
    def name(self) -> str:
        """Name of the function; '' if it has no name."""
        return str(getattr(self.function, "__name__", ""))

    def argument(self, place: int, name: str, default: object = None) -> Any:
        """Return the argument at a place or under a name; `default` if neither is given."""
        return self.keywords.get(name, self.arguments[place] if len(self.arguments) > place else default)


class Calls(TorchFunctionMode):
    """Hands every call of a torch function to `made`, while it is active."""

    def __torch_function__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        """Return what `made` returns for the call."""
        # torch turns the mode off while this method runs, so calls that `made` makes do not come here again.
        return self.made(Call(func, args, kwargs or {}))

    def made(self, call: Call) -> Any:
        """Return the result of the call: the result of `call()`, or a value in its place."""
        raise NotImplementedError
