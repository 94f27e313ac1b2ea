"""One subcommand: its function, the settings that it takes as flags, and how each parameter reads in the help.

Every flag of every command gets its choices and its default from `described`, so that they read alike.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin

from cyclopts import Parameter

from ..settings.allowed_values import admits, metavar
from ..settings.methods import METHOD_GROUPS
from ..settings.run import leaves
from .settings_flags import default_text, settings_flag


@dataclass(frozen=True)
class Command:
    """A subcommand of `heatlas`."""

    run: Callable[..., int]
    """Its parameters are arguments and flags; its `**flags`, if it has them, are settings."""
    settings: tuple[str, ...] = ()
    """Names of the settings that it takes."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Help of settings that mean something else here."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Of settings that are left out here with another meaning."""

    def for_method(self, method: str) -> Callable[..., int]:
        """The function as cyclopts is to see it: one parameter per flag; of the methods' settings the help shows those of `method`."""
        own = [
            described(parameter)
            for parameter in inspect.signature(self.run, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        fields = leaves()
        flags = [
            settings_flag(
                name, fields[name], self.texts.get(name), default=self.defaults.get(name), show=is_shown(name, method)
            )
            for name in self.settings
        ]
        return with_signature(self.run, inspect.Signature([*own, *flags], return_annotation=int))

    def listed(self) -> Callable[[], int]:
        """For the list of commands alone: a function with the same text and without options."""

        def command() -> int:
            raise NotImplementedError("a command is made ready before it is run")

        command.__doc__ = self.run.__doc__
        return command


def is_shown(name: str, method: str) -> bool:
    """Whether the help lists a setting: not where it belongs to another method."""
    group = name.partition(".")[0]
    return group not in METHOD_GROUPS or group == method


def described(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter with choices and default written as those of settings are."""
    kind, *metadata = get_args(parameter.annotation)
    assert get_origin(parameter.annotation) is Annotated, f"{parameter.name} needs a help text"
    shown = Parameter(
        metavar=None if admits(kind, bool) else metavar(kind),
        show_choices=False,
        show_default=default_text(None if parameter.default is parameter.empty else parameter.default),
        consume_multiple=True if admits(kind, list) else None,
        negative="",
    )
    return parameter.replace(annotation=Annotated[kind, shown, *metadata])


def with_signature(run: Callable[..., int], signature: inspect.Signature) -> Callable[..., int]:
    """The function under another signature."""

    @functools.wraps(run)
    def command(*arguments: Any, **flags: Any) -> int:
        return run(*arguments, **flags)

    attributes: dict[str, Any] = vars(command)
    attributes["__signature__"] = signature
    command.__annotations__ = {name: item.annotation for name, item in signature.parameters.items()}
    return command
