"""kdlab: knowledge distillation, every claim shown with error bars, on your own machine, in seconds."""

import importlib
import os
import sys
import warnings

# before torch: OpenMP threads that spin while they wait make small steps many times slower beside another process
if "torch" in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
    warnings.warn("torch was imported before kdlab, so its threads spin while they wait and small steps may be many "
                  "times slower; import kdlab first, or set OMP_WAIT_POLICY=PASSIVE", stacklevel=2)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from . import cache, divergences, features, generate, metrics, models, objectives, plots, signals, sparse, sums, tasks
from . import text, vocabulary
from .api import APITeacher
from .checks import check, hint, predict
from .conventions import conventions
from .distill import distill, generations, sweep, train
from .divergences import forward_kl, jsd, reverse_kl, skew_forward_kl, skew_reverse_kl, tvd
from .encoders import student_from
from .exits import DeepToShallow, with_exits
from .features import cka, tap
from .fit import fit
from .fused import linear_divergence
from .generate import OnPolicy, completions
from .hidden import HiddenLoss
from .intervals import Comparison, Estimate, claim, compare
from .lab import doctor, setup
from .live import EMA, Peers
from .metrics import accuracy, agreement, ece, entropy, nll, parameters
from .models import convnet, language_model, mlp, text_classifier
from .objectives import DISTLoss, DKDLoss, HardLabels, KDLoss, LabelSmoothing, SquaredError
from .relations import LayerMap, Relations
from .rows import Collator
from .runs import Runs
from .signals import each, ensemble, shuffle_wrong_classes
from .tasks import load, splits
from .text import load_text, plain_text
from .tokens import TokenLoss

__version__ = "0.1.0"


def __getattr__(name):
    if name == "widgets":  # a tenth of a second, for those who open an explorer
        return importlib.import_module(".widgets", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
