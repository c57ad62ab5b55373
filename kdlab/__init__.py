"""kdlab: knowledge distillation, every claim with error bars, on your own machine, in seconds.

What is public stands in `__init__.pyi`, by the room it lives in; a name is loaded when it is first
asked for, so that `import kdlab` costs little and a missing extra is missed only by who needs it.
"""

import os
import sys
import warnings

import lazy_loader

# before torch: threads that spin while they wait make small steps many times slower beside others
if "torch" in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
    warnings.warn(
        "torch was imported before kdlab, so its threads spin while they wait and small steps may "
        "be many times slower; import kdlab first, or set OMP_WAIT_POLICY=PASSIVE",
        stacklevel=2,
    )
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
