"""The device that a user names."""

import torch

from colotride.errors import ConfigurationError


def device_of(name: str) -> torch.device:
    """The device of this name; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        ConfigurationError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"device {name!r} cannot be used ({reason}); use cpu or auto") from None
    return torch.device(name)
