"""Size of the square crops that the host passes to a device for scaling."""

import jax

from trainer.configs.config import Config

# Bilinear scaling reads 2×2 pixels, enough for up to this many source pixels per output pixel.
# Larger ratios need antialiasing, which takes three times as long and runs on the host.
ANTIALIAS_ABOVE = 1.5


def device_crop_side(config: Config) -> int | None:
    """Return the side in pixels of the unscaled crops for the device; None: the host scales them.

    The side holds any crop from frames whose short side is `input.short_side`.

    >>> from trainer.configs.overrides import override
    >>> device_crop_side(override(Config(), ["input.scale_on=device"]))
    249
    """
    where, made = config.input.scale_on, config.video.resolution
    if where == "host" or (where == "auto" and jax.default_backend() == "cpu"):
        return None
    return min(max(made, round(made / config.input.scale[0])), int(ANTIALIAS_ABOVE * made))
