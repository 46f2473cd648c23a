"""Value functions that weigh the tokens of samples."""

import math
from dataclasses import dataclass

from fpo_core.config.fields import Settings, setting
from fpo_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ValueConfig(Settings):
    """Values that weigh the tokens of samples."""

    value: tuple[str, ...] | None = setting(
        None,
        help="Folder of a value function (fpo value train) that weighs each token by the reward it "
        "leads to; several, comma-separated or each with an option, add up.",
        repeatable=True,
    )
    value_beta: tuple[str, ...] | None = setting(
        None,
        help="How strongly values weigh, per unit of their reward: one number, or one for each "
        "value; by default 1. Below 0 the reward is avoided.",
        repeatable=True,
    )
    value_top_k: int = setting(
        20, help="Likeliest tokens whose values are asked; others keep their logit.", least=1
    )

    @property
    def betas(self) -> tuple[float, ...]:
        """The weight of each value."""
        texts = self.value_beta or ("1",)
        return tuple(map(float, texts * len(self.value or ()) if len(texts) == 1 else texts))

    def check(self) -> None:
        """Weights are finite numbers, one or as many as values."""
        for text in self.value_beta or ():
            try:
                finite = math.isfinite(float(text))
            except ValueError:
                finite = False
            if not finite:
                raise ConfigError(f"value_beta has {text!r}, expected numbers such as 3 or 0.5")
        if self.value is None:
            for name in ("value_beta", "value_top_k"):
                if getattr(self, name) != getattr(ValueConfig, name):
                    raise ConfigError(
                        f"{name} is set while value is not: set value, or leave it out"
                    )
        elif len(self.betas) != len(self.value):
            raise ConfigError(
                f"value_beta has {len(self.betas)} numbers and value {len(self.value)} folders, "
                "expected one number, or one for each"
            )
