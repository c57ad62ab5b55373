"""Who teaches, and what of it is kept."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["cache", "outputs", "signals", "sparse"]
)
