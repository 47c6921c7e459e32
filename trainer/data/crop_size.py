"""Size of the squares in which the host hands crops to a device that scales them."""

import jax

from trainer.configs.config import Config

# Bilinear scaling reads 2×2 pixels, which is enough down to this many source pixels for each
# pixel made; antialiasing, three times as slow, is for more, and done on the host.
ANTIALIAS_ABOVE = 1.5


def room(config: Config) -> int | None:
    """Side, in pixels, of the squares that crops go to the device in; None: they go there scaled.

    All crops of frames whose short side is `input.short_side` fit.

    >>> from trainer.configs.overrides import override
    >>> room(override(Config(), ["input.scale_on=device"]))
    249
    """
    where, made = config.input.scale_on, config.video.resolution
    if where == "host" or (where == "auto" and jax.default_backend() == "cpu"):
        return None
    return min(max(made, round(made / config.input.scale[0])), int(ANTIALIAS_ABOVE * made))
