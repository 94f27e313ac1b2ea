"""How many forward passes an image may cost: everything, a preset share, a share, or a number."""

from __future__ import annotations

from ...errors import SettingsError, did_you_mean

Budget = str | int | float
"""A preset's name; forwards per image, the unmasked one included; or their share in (0, 1] of what `exact` would take."""

EXACT = "exact"
PRESETS: dict[str, float] = {EXACT: 1.0, "balanced": 0.25, "fast": 0.10}
"""Share of the forwards of each preset."""
LEAST_MASKS = 8
"""Masks that are scored however small a share is; below, there is nothing to predict the others from."""
LEAST_FORWARDS = LEAST_MASKS + 1


def check_budget(budget: Budget) -> Budget:
    """The budget itself.

    Raises:
        SettingsError: When it is none.
    """
    presets = ", ".join(repr(name) for name in PRESETS)
    allowed = (
        f"{presets}, forwards per image (a whole number of at least {LEAST_FORWARDS}) or a share of them in (0, 1]"
    )
    if isinstance(budget, str):
        if budget not in PRESETS:
            raise SettingsError(f"budget must be {allowed}, got {budget!r}{did_you_mean(budget, PRESETS)}")
    elif isinstance(budget, bool) or not isinstance(budget, int | float):
        raise SettingsError(f"budget must be {allowed}, got {budget!r}")
    elif isinstance(budget, int):
        if budget < LEAST_FORWARDS:
            remedy = "; write 1.0 for all of them" if budget == 1 else ""
            raise SettingsError(f"budget must be {allowed}, got {budget}{remedy}")
    elif not 0 < budget <= 1:
        raise SettingsError(f"budget must be {allowed}, got {budget}")
    return budget


def masks_allowed(budget: Budget, masks: int) -> int:
    """How many of an image's masks may be scored.

    A share counts the unmasked forward too, so that `n_forwards` never exceeds it, but for `LEAST_MASKS`.
    """
    if isinstance(budget, int):
        return min(masks, budget - 1)
    share = PRESETS[budget] if isinstance(budget, str) else budget
    return masks if share == 1 else min(masks, max(LEAST_MASKS, int(share * (masks + 1)) - 1))
