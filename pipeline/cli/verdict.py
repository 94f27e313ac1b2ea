"""`heatlas verdict`: is a repaired model better?"""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from ...errors import UsageError
from ..text import counted, harmless
from .arguments import Json


def verdict_command(
    *before: Annotated[str, Parameter(help="Models before: stores, folders of heatlas fix, weights (.safetensors) or models; at least 3.")],
    after: Annotated[list[str] | None, Parameter(help="Models after, in the same ways; at least 3.")] = None,
    store: Annotated[
        str | None, Parameter(help="Store with the locked test split and the decisions; default: the first model, if it is a store.", metavar="PATH|URI")
    ] = None,
    trained_on: Annotated[
        list[str] | None, Parameter(help="Manifests that the models were trained on, where heatlas fix did not train them.", metavar="FILE")
    ] = None,
    lock: Annotated[str | None, Parameter(help="Lock the test split of this store, before the first repair, and end.", metavar="STORE")] = None,
    where: Annotated[str | None, Parameter(help="With --lock: SQL condition on the rows; default: all images.")] = None,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Compare models before and after a repair on a locked test split: better, no evidence or worse, line by line.

    Example: `heatlas verdict before-0/ before-1/ before-2/ --after maps/fixes/dfr`
    """
    from ..verdict.judge import judge_repair, lock_store
    from ..verdict.text import verdict_text

    if lock is not None:
        if before or after or store or trained_on:
            raise UsageError("--lock STORE takes --where and nothing else: a split is locked before there are models")
        split = lock_store(lock, where)
        facts = {"store": lock, "images": len(split.images), "locked": split.locked, "digest": split.digest}
        print(json.dumps(facts, indent=2) if as_json else harmless(
            f"{lock}: test split of {counted(len(split.images), 'image')} locked {split.locked}; heatlas fix keeps them out of training"))  # fmt: skip
        return 0
    if where is not None:
        raise UsageError("--where chooses the images that --lock locks; a verdict is about the locked ones")
    if not before or not after:
        raise UsageError("name at least 3 models before and, with --after, at least 3 after the repair")
    verdict = judge_repair(before, after, store=store, trained_on=trained_on or ())
    print(json.dumps(verdict.as_json(), indent=2) if as_json else harmless(verdict_text(verdict)))
    return 0
