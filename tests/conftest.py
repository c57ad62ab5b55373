"""Every test: offline, without a display or progress bars, with the same examples each time."""

import os

# read when kdlab, tqdm and huggingface_hub are imported, so before them
os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
os.environ.pop("KDLAB_SCALE", None)

import matplotlib
from hypothesis import settings

matplotlib.use("Agg")  # not by MPLBACKEND, which the kernels that some tests start would inherit

# no deadline: another busy process is no failure; the same examples on every run
settings.register_profile("kdlab", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("kdlab")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "browser" in item.path.parts)  # last: Playwright keeps an event loop in this thread
