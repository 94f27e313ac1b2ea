"""Settings of `plain_gradient`; without torch, so that `heatlas explain --help` need not wait for it."""

from dataclasses import dataclass, field

from heatlas.errors import SettingsError


@dataclass(frozen=True)
class GradientSettings:
    """Plain values with defaults. `ge`, `gt`, `le`, `lt` beside the help are bounds; what they cannot say, `__post_init__` does."""

    power: float = field(default=1.0, metadata={"help": "exponent of the gradient's size, above 0"})

    def __post_init__(self) -> None:
        if self.power <= 0:
            raise SettingsError(f"power must be above 0, got {self.power}")
