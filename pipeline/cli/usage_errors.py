"""What a wrong command line is told: the parser's findings in the words of the settings, without its types."""

from __future__ import annotations

import types
from typing import Annotated, Any, Union, get_args, get_origin

from cyclopts import CoercionError, CycloptsError, MissingArgumentError, UnknownOptionError, UnusedCliTokensError

from ...errors import did_you_mean
from ..settings.allowed_values import allowed, choices
from ..settings.renamed import RENAMED, SWITCHES
from ..settings.run import leaves

OF_EXPLAIN = ("heatlas", "heatlas explain", "heatlas plan")
"""Commands whose options are all the settings."""


def usage_text(error: CycloptsError) -> str:
    """The message for people, with the help that says more."""
    command = " ".join(["heatlas", *(error.command_chain or ())])
    return renamed_flag(f"{error}") or f"{finding(error, command)}\nSee `{command} --help`."


def finding(error: CycloptsError, command: str) -> str:
    """What is wrong; the parser's own words where ours would say no more."""
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return unexpected(error.unused_tokens)
    if isinstance(error, UnknownOptionError):
        return setting_of_explain(error, command) or f"{error}"
    if isinstance(error, MissingArgumentError):
        return missing(error, command)
    if isinstance(error, CoercionError):
        return not_allowed(error)
    return f"{error}"


def renamed_flag(text: str) -> str | None:
    """What a flag is called now, if the text of an error names one of before."""
    for name, now in RENAMED.items():
        if f" --{name.replace('_', '-')}." in text:
            return f"--{name.replace('_', '-')} is called --{now.replace('_', '-')} now"
    for name, now in SWITCHES.items():
        if f'"--{name.replace("_", "-")}"' in text or f" --{name.replace('_', '-')}." in text:
            return f"--{name.replace('_', '-')} is {now} now"
    return None


def unexpected(tokens: list[str]) -> str:
    noun = "argument" if len(tokens) == 1 else "arguments"
    return f"unexpected {noun} {', '.join(map(repr, tokens))}; quote a value with spaces, and write --NAME before an option's value"


def setting_of_explain(error: UnknownOptionError, command: str) -> str | None:
    """For a flag that is a setting of `heatlas explain`, which this command does not take; None for others."""
    flag = (error.token.keyword or error.token.value).split("=")[0]
    if flag.removeprefix("--").removeprefix("no-").replace("-", "_") not in leaves() or command in OF_EXPLAIN:
        return None
    return f"`{command}` does not take {flag}, a setting of `heatlas explain`; leave it out"


def missing(error: MissingArgumentError, command: str) -> str:
    """`heatlas evaluate` needs STORE, or `--model` needs a value."""
    if error.argument is None:
        return f"{error}"
    text, kind = f"{error.argument.parameter.help or ''}".rstrip("."), plain(error.argument.hint)
    what = f"{text}; it must be {allowed(kind)}" if choices(kind) else text
    if error.keyword is not None:
        return f"{error.keyword} needs a value: {what}"
    name = error.argument.name
    return f"`{command}` needs {name if name.startswith('--') else name.upper()}: {what}"


def not_allowed(error: CoercionError) -> str:
    """The value, and what is allowed instead, as settings say it."""
    if error.token is None or error.argument is None:
        return f"{error}"
    value, kind = error.token.value, plain(error.argument.hint)
    flag = error.token.keyword or error.argument.name.lstrip("-").upper()
    return f"{flag} {value!r} is not allowed: it must be {allowed(kind)}{did_you_mean(value, choices(kind))}"


def plain(hint: Any) -> Any:
    """The type of one value: without `None`, `list` and what is annotated."""
    if get_origin(hint) is Annotated:
        return plain(get_args(hint)[0])
    if get_origin(hint) is list:
        return plain(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return plain(kinds[0]) if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007
    return hint
