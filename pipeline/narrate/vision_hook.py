"""Let a function of the user's, such as a vision-language model, write a row's text; it is taken only if it is grounded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from ...errors import UsageError
from .facts import Facts
from .grounding import ungrounded_parts
from .templates import Language

Hook = Callable[[str, bytes | None], str]
"""Takes a prompt, and the image beside its map as PNG (None where it cannot be read); returns a text."""
TEMPLATE, GROUNDED, UNGROUNDED, FAILED = "template", "grounded", "ungrounded", "hook_failed"
INSTRUCTION = (
    "Describe in at most four plain sentences what the model saw in this image and where its evidence lies. Write every number in digits, "
    "as it is given here, and use no number and no class name that is not given here."
)


@dataclass(frozen=True)
class Narration:
    """One text and where it came from."""

    text: str
    status: str
    """`template`; with a hook `grounded` (its text), or `ungrounded` and `hook_failed` (the template's)."""
    wrong: tuple[str, ...] = ()
    """What the hook's text said without grounds, or how the hook failed."""
    prompt: str | None = None
    answer: str | None = None


def load_hook(spec: str) -> Hook:
    """Import `package.module:callable`. This runs code: only what the user named on this command line.

    Raises:
        UsageError: If it cannot be imported or called.
    """
    from ...workers.models.factory import import_user_module, module_attribute  # here, because it waits for torch

    module, separator, name = spec.partition(":")
    if not separator or not name:
        raise UsageError(f"--vlm must be package.module:callable, got {spec!r}")
    hook = module_attribute(import_user_module(module), name, module)
    if not callable(hook):
        raise UsageError(f"--vlm {spec} cannot be called")
    return cast(Hook, hook)


def prompt_of(facts: Facts, template: str, language: Language) -> str:
    """What the hook is told: the facts as JSON, numbers as they may be written, and the template's text as an example."""
    given = {
        **{name: language.percent(value) for name, value in facts.shares.items()}, **facts.counts, **facts.names,
        **{name: language.places[key] for name, key in facts.places.items()},
    }  # fmt: skip
    return (
        f"{INSTRUCTION}\n\n{json.dumps(given, ensure_ascii=False, indent=1, sort_keys=True)}\n\nFor example: {template}"
    )


def narrate_by_hook(
    hook: Hook, facts: Facts, template: str, picture: bytes | None, class_names: Sequence[str], language: Language
) -> Narration:
    """The hook's text if it is grounded, else the template's; a hook that raises costs its row the text, not the run."""
    prompt = prompt_of(facts, template, language)
    try:
        answer = hook(prompt, picture)
    except Exception as error:  # the user's code may raise anything
        return Narration(template, FAILED, (f"{type(error).__name__}: {error}",), prompt)
    if not isinstance(answer, str):
        return Narration(template, FAILED, (f"it returned {type(answer).__name__}, not text",), prompt)
    wrong = ungrounded_parts(answer, facts, class_names, language)
    if wrong:
        return Narration(template, UNGROUNDED, tuple(wrong), prompt, answer)
    return Narration(answer.strip(), GROUNDED, (), prompt, answer)


def sha256_of(text: str | None) -> str | None:
    """Hex digest; None for none."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()
