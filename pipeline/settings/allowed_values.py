"""What a setting may be, in words: for the help and for error messages, read off the type annotation so that both agree."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

COUNTS = {1: "one", 2: "two", 3: "three"}
SINGLE = {bool: "true or false", str: "text", int: "a whole number", float: "a number", type(None): "none"}
PLURAL = {str: "texts", int: "whole numbers", float: "numbers"}
METAVARS = {bool: "BOOL", str: "TEXT", int: "INT", float: "NUM"}


def allowed(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """The values that an annotation admits, such as `'auto' or a whole number of at least 1`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return allowed(arguments[0], [*metadata, *annotation.__metadata__])
    if origin in (Union, types.UnionType):
        return " or ".join(allowed(argument) for argument in arguments)
    if origin is Literal:
        return " or ".join(repr(value) for value in arguments)
    if origin is tuple:
        return allowed_list(arguments)
    for field in metadata:  # a text of a certain form names its forms as examples
        if isinstance(field, FieldInfo) and field.examples:
            return " or ".join(map(str, field.examples))
    return SINGLE.get(annotation, "a group of settings") + bounds(metadata)


def allowed_list(arguments: tuple[Any, ...]) -> str:
    kind = arguments[0]
    inner, metadata = (get_args(kind)[0], kind.__metadata__) if get_origin(kind) is Annotated else (kind, ())
    many = "a list of" if arguments[-1] is Ellipsis else COUNTS.get(len(arguments), str(len(arguments)))
    noun = SINGLE[inner].removeprefix("a ") if len(arguments) == 1 else PLURAL[inner]
    limits = bounds(metadata)
    return f"{many} {noun}" + (f", each{limits}" if limits and len(arguments) > 1 else limits)


def bounds(metadata: Iterable[Any]) -> str:
    """The range in words, such as ` of at least 1` or ` in (0, 1]`; nothing without limits."""
    low = high = None
    for limit in _flat(metadata):
        if isinstance(limit, annotated_types.Ge | annotated_types.Gt):
            low = limit
        elif isinstance(limit, annotated_types.Le | annotated_types.Lt):
            high = limit
    if low is None:
        return ""
    if high is None:
        return f" of at least {low.ge}" if isinstance(low, annotated_types.Ge) else f" above {low.gt}"
    left = f"[{low.ge}" if isinstance(low, annotated_types.Ge) else f"({low.gt}"
    right = f"{high.le}]" if isinstance(high, annotated_types.Le) else f"{high.lt})"  # pyright: ignore[reportAttributeAccessIssue]
    return f" in {left}, {right}"


def _flat(metadata: Iterable[Any]) -> Iterable[Any]:
    """Limits also come wrapped in pydantic's FieldInfo when they stand inside `Annotated[..., Field(...)]`."""
    for item in metadata:
        yield from getattr(item, "metadata", [item])


def metavar(annotation: Any) -> str:
    """The short form for the help, such as `auto|INT` or `NUM...`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return metavar(arguments[0])
    if origin in (Union, types.UnionType):
        kinds = [argument for argument in arguments if argument is not type(None)]
        return "|".join(dict.fromkeys(metavar(kind) for kind in kinds))
    if origin is Literal:
        return "|".join(str(value) for value in arguments)
    if origin is tuple:
        inner = metavar(arguments[0])
        return f"{inner}..." if arguments[-1] is Ellipsis else " ".join([inner] * len(arguments))
    return METAVARS.get(annotation, "VALUE")


def admits(annotation: Any, kind: Any) -> bool:
    """Whether `kind` (a plain type or `tuple`) is among the types of the annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return admits(arguments[0], kind)
    if origin in (Union, types.UnionType):
        return any(admits(argument, kind) for argument in arguments)
    return annotation is kind or origin is kind


def choices(annotation: Any) -> list[str]:
    """The names among the admitted values, for hints."""
    if get_origin(annotation) is Literal:
        return [value for value in get_args(annotation) if isinstance(value, str)]
    return [choice for argument in get_args(annotation) for choice in choices(argument)]
