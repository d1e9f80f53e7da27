"""Arguments of a network as a `config.json` gives them: whether its constructor takes them."""

import inspect
import json
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from common.errors import UserError

# A value of each type in words, and several of them.
WORDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    bool: ("true or false", "of true or false"),
    NoneType: ("null", "null"),
}


def check_arguments(network: type, arguments: Mapping[str, Any]) -> None:
    """Compares arguments with the annotations of a constructor.

    Args:
        network: Class of the network.
        arguments: Arguments by their names, JSON values, of which the constructor knows all.

    Raises:
        UserError: An argument is missing, or is of another type.
    """
    for name, parameter in inspect.signature(network).parameters.items():
        if name not in arguments:
            if parameter.default is parameter.empty:
                raise UserError(f'it has no "{name}", which {network.__name__} needs.')
        elif not _takes(parameter.annotation, arguments[name]):
            value = json.dumps(arguments[name])[:50]
            rule = _in_words(parameter.annotation)
            raise UserError(f'"{name}" is {value}, and must be {rule}.')


def _takes(annotation: Any, value: Any) -> bool:
    """Whether a JSON value is of a type; a type that is not known here takes any."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return value in inner
    if origin in (Union, UnionType):
        return any(_takes(one, value) for one in inner)
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        return isinstance(value, list) and all(_takes(inner[0], item) for item in value)
    if annotation in (int, float) and isinstance(value, bool):  # which Python counts as an int
        return False
    if annotation is float:
        return isinstance(value, int | float)
    if annotation is None:
        return value is None
    return annotation not in WORDS or isinstance(value, annotation)


def _in_words(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(json.dumps, inner))
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, inner))
    if origin is not None:
        _, several = WORDS.get(inner[0], ("", "values"))
        return f"a list of {several}"
    word, _ = WORDS[NoneType if annotation is None else annotation]
    return word
