"""A model as a file that runs without torch: ONNX, in whole numbers or in eight bits, compared."""

import functools
import os
import re
import tempfile  # noqa: F401  # for the examples
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdlab.base.arguments import instance, number, place, rows_of
from kdlab.base.extras import needs
from kdlab.base.wrapped import evaluating, takes
from kdlab.base.writing import beside, quiet

INPUT, OUTPUT = "x", "logits"


class OnnxModel:
    """A file in ONNX, run by onnxruntime: called on inputs as the model was → its logits.

    path: the file. difference: how far its logits are from those of the model that it came from, at
    most, on the inputs it was compared on; NaN for a file that is only opened. Runs on the CPU,
    with as many threads as torch. Its answers are float32 tensors (N, …).

    >>> folder = tempfile.TemporaryDirectory()
    >>> file = to_onnx(nn.Linear(3, 2), torch.rand(2, 3), Path(folder.name, "linear.onnx"))
    >>> OnnxModel(file.path)
    OnnxModel('linear.onnx', ... bytes)
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike, difference: float = float("nan")) -> None:
        self.path, self.difference = Path(place("OnnxModel", "path", path)), difference
        if not self.path.is_file():
            raise FileNotFoundError(f"OnnxModel: path must be a file in ONNX, got {self.path}")

    def __repr__(self):
        return f"OnnxModel({self.path.name!r}, {self.nbytes:,} bytes)"

    @property
    def nbytes(self) -> int:
        """The size of the file."""
        return self.path.stat().st_size

    @functools.cached_property
    def _session(self):
        with needs("ship", asked="OnnxModel", why="to run a file in ONNX one needs"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # its threads would go on asking for work, and take the cores of whoever is timed next
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own kinds derive from nothing in common
            raise ValueError(
                f"OnnxModel: path must be a model that onnxruntime can run, got {self.path.name}: "
                f"{error}"
            ) from error

    def __call__(self, x: Any = None, **inputs: Tensor) -> Tensor:
        given = {INPUT: x} if torch.is_tensor(x) else {**(x or {}), **inputs}
        wanted = {one.name for one in self._session.get_inputs()}
        if set(given) != wanted:
            raise ValueError(
                f"OnnxModel: x must hold {sorted(wanted)}, as the model was exported with, got "
                f"{sorted(given)}"
            )
        arrays = {name: value.detach().cpu().numpy() for name, value in given.items()}
        return torch.from_numpy(self._session.run([OUTPUT], arrays)[0])

    def int8(self, path: str | os.PathLike, x: Any) -> "OnnxModel":
        """The same with weights of eight bits, a file at `path` → `OnnxModel`.

        Dynamic quantisation, as onnxruntime does it: weights once, what flows through when it
        comes. x: inputs to compare on; `difference` is from this file's logits. What eight bits
        cost is no error: measure it, for example by `kdlab.audit` of both's logits.
        """
        rows_of("int8", "x", x)
        with needs("ship", asked="int8", why="eight bits need"):
            from onnxruntime.quantization import QuantType, quantize_dynamic
        with beside(Path(place("int8", "path", path))) as new, quiet():
            quantize_dynamic(self.path, new, weight_type=QuantType.QInt8)
            far = _apart(OnnxModel(new)(x), self(x))
        return OnnxModel(path, far)


def to_onnx(
    model: nn.Module, x: Any, path: str | os.PathLike, tolerance: float = 1e-4
) -> OnnxModel:
    """A model as a file in ONNX that says the same → `OnnxModel`.

    model: of torch or transformers (what answers with `logits`), read in eval mode and left as it
    was. x: two rows or more of inputs, a tensor (N, …) or a dictionary of them as a tokenizer
    gives. The file takes any number of rows, and of token ids (N, L) any length. It is written
    whole or not at all, in torch.export's way, weights inside (so up to 2 GB). Compared by
    onnxruntime with the model on x and on a part of it: ValueError where they differ by more than
    tolerance, relative to the largest logit, and where an operator has no form in ONNX (it is
    named).

    >>> folder = tempfile.TemporaryDirectory()
    >>> x = torch.rand(4, 3)
    >>> file = to_onnx(nn.Linear(3, 2), x, Path(folder.name, "linear.onnx"))
    >>> file(x).shape, file.difference < 1e-5
    (torch.Size([4, 2]), True)
    >>> folder.cleanup()
    """
    instance("to_onnx", "model", model, nn.Module, "a model")
    number("to_onnx", "tolerance", tolerance, low=0)
    if any(p.dtype == torch.bfloat16 for p in model.parameters()):
        raise ValueError(
            "to_onnx: model must be in float32 or float16, got bfloat16, which onnxruntime does "
            "not compute in: model.float()"
        )
    if rows_of("to_onnx", "x", x) < 2:
        raise ValueError("to_onnx: x must hold two rows or more, to see that any number works")
    with needs("ship", asked="to_onnx", why="a file in ONNX needs"):
        import onnx  # noqa: F401  # torch asks for both in the middle of its work
        import onnxscript  # noqa: F401
    home = next((p.device for p in model.parameters()), torch.device("cpu"))
    given = {INPUT: x} if torch.is_tensor(x) else dict(x)
    given = {name: value.to(home) for name, value in given.items()}
    with evaluating(model), beside(Path(place("to_onnx", "path", path))) as new:
        alone = _Logits(model, list(given), torch.is_tensor(x)).eval()
        alone(*given.values())  # an error of its own is not one of the export
        with quiet():
            _exported(alone, given, new)
        far = 0.0
        for part in (given, _smaller(given)):
            wanted, found = alone(*part.values()).float().cpu(), OnnxModel(new)(**part)
            far = max(far, _apart(found, wanted))
            if not far <= tolerance * max(1.0, float(wanted.abs().max())):
                raise ValueError(
                    f"to_onnx: model must say the same in ONNX, to tolerance {tolerance:g} of its "
                    f"largest logit {wanted.abs().max():.3g}, got a difference of {far:.3g}"
                )
    return OnnxModel(path, far)


class _Logits(nn.Module):
    """A model whose inputs have an order and whose output is one tensor."""

    def __init__(self, model, names, plain):
        super().__init__()
        self.model, self.names, self.plain = model, names, plain
        self.options = {"use_cache": False} if "use_cache" in (takes(model) or ()) else {}

    def forward(self, *inputs):
        named = dict(zip(self.names, inputs, strict=True))
        out = self.model(*inputs) if self.plain else self.model(**named, **self.options)
        return getattr(out, "logits", out)


def _exported(alone, given, path):
    """Write the file, or the error that says which operator is in the way."""
    anything = torch.export.Dim.DYNAMIC
    shapes = tuple(
        {0: anything} | ({1: anything} if _tokens(value) else {}) for value in given.values()
    )
    try:
        torch.onnx.export(
            alone,
            tuple(given.values()),
            path,
            dynamo=True,
            verbose=False,
            input_names=list(given),
            output_names=[OUTPUT],
            dynamic_shapes=(shapes,),  # of *inputs
            external_data=False,
        )
    except Exception as error:  # torch's exporter raises what its parts raise
        told = [str(one) for one in (error, error.__cause__) if one is not None]
        found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", "".join(told))
        why = f"its operator {found[1]} has no form there" if found else told[-1].split("\n")[0]
        raise ValueError(f"to_onnx: model can't be written in ONNX: {why}") from error


def _tokens(value):
    return value.ndim == 2 and not value.is_floating_point()


def _smaller(given):
    """One row, and of token ids half of the length."""
    return {k: v[:1, : (v.shape[1] + 1) // 2] if _tokens(v) else v[:1] for k, v in given.items()}


def _apart(found, wanted):
    if found.shape != wanted.shape:
        return float("inf")
    return float((found.double() - wanted.double()).abs().max())
