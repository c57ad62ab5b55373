"""One wrong argument at a time, for everything that `kd` offers: a result, or an error in kdlab's
own words."""

import atexit
import contextlib
import functools
import inspect
import io
import os
import re
import shutil
import tempfile

import pandas as pd
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from test_house import EXPORTED
from tokenizers import Tokenizer, models

import kdlab as kd
from kdlab.teachers.api import Answer


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory):
    """What a function writes under a name it is given stays out of the checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        yield


OWN = (TypeError, ValueError, FileNotFoundError, ImportError, RuntimeError, ConnectionError)
BAD = {
    "None": None,
    "nan": float("nan"),
    "inf": float("inf"),
    "-1": -1,
    "0": 0,
    "1.5": 1.5,
    "True": True,
    "''": "",
    "'nonsense'": "nonsense",
    "[]": [],
    "{}": {},
    "[None]": [None],
    "object()": object(),
    "tensor()": torch.tensor(float("nan")),
    "tensor(0)": torch.zeros(0),
    "tensor(7,3)": torch.zeros(7, 3),
}


def z(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@functools.cache
def task():
    return kd.load("digits", sizes=(20, 10, 10))


@functools.cache
def runs():
    return kd.train(kd.mlp(4), task(), epochs=1)


def llama():
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=8, num_attention_heads=1, num_hidden_layers=1
    )
    return transformers.LlamaForCausalLM(config).eval()


@functools.cache
def bert():
    sizes = dict(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
    )
    return transformers.BertModel(transformers.BertConfig(**sizes))


BATCH = ("input_ids", "attention_mask", "labels")


def words(letters):
    """A tokenizer whose tokens are these letters, in this order."""
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token=letters[0]))
    )


def adapted():
    from peft import LoraConfig, get_peft_model

    return get_peft_model(llama(), LoraConfig(target_modules=["q_proj"]))


def trainer():
    return {
        "model": llama(),
        "args": transformers.TrainingArguments("unused", report_to="none", use_cpu=True),
        "teacher": llama(),
        "objective": kd.TokenLoss(),
        "hidden": None,
        "on_policy": None,
        "fused": "auto",
        "vocab_size": None,
        "half_precision": False,
        "teacher_init": None,
    }


def estimate():
    return kd.Estimate(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.0}), "gain", "points", 1)


def pair(**more):
    return {
        "student_logits": z(3, 4),
        "teacher_logits": z(3, 4),
        "temperature": 2.0,
        "mask": torch.ones(3, dtype=torch.bool),
        "reduction": "mean",
    } | more


def reads_3(logits, data):
    return (logits.argmax(1) == 3).float().mean()


def own_loss(student_logits, teacher_logits, T, alpha):
    return alpha * T * (student_logits - teacher_logits).square().mean()


def grid(**more):
    return {
        "student": kd.mlp(2),
        "tasks": task(),
        "epochs": 1,
        "lr": 1e-2,
        "batch": 32,
        "seeds": 1,
        "on": "train",
        "start": None,
        "checkpoints": 1,
        "metrics": [reads_3],
        "at_once": None,
        "optimiser": "adam",
        "schedule": "cosine",
        "clip": 1.0,
    } | more


def taught(**more):
    return grid(teacher=runs(), temperature=4.0, alpha=0.9) | more


def fused():
    return {
        "student_hidden": z(2, 5, 4),
        "student_head": torch.nn.Linear(4, 8),
        "teacher_hidden": z(2, 5, 6),
        "teacher_head": torch.nn.Linear(6, 8),
        "labels": torch.zeros(2, 5, dtype=torch.long),
        "objective": None,
        "chunk": 4,
        "reduction": "mean",
        "vocab_size": None,
    }


def fitted():
    rows = [{"input_ids": [1, 5, 2], "labels": [1, 5, 2]}] * 2
    return {
        "student": llama(),
        "data": rows,
        "teacher": None,
        "objective": kd.HardLabels(),
        "hidden": None,
        "on_policy": None,
        "collator": None,
        "epochs": 1,
        "steps": 1,
        "batch": 2,
        "lr": 1e-3,
        "seed": 0,
    }


@functools.cache
def scratch():
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def onnx_file():
    path = os.path.join(scratch(), "net.onnx")
    kd.to_onnx(torch.nn.Linear(3, 2), torch.zeros(2, 3), path)
    return path


@functools.cache
def signals():
    folder = os.path.join(scratch(), "signals")
    return kd.signals.from_teacher(folder, llama(), [{"id": 1, "input_ids": [1, 2, 3]}], k=2)


# name → the keyword arguments of a right call ("*names": positional), made anew for each call
RIGHT = {
    "APITeacher": lambda: {
        "base_url": "http://127.0.0.1:9/v1",
        "api_key": "k",
        "model": "m",
        "cache": None,
        "max_calls": 1,
        "max_cost": 1.0,
        "price": (1.0, 1.0),
        "retries": 0,
        "timeout": 1.0,
        "workers": 1,
    },
    "Collator": lambda: {"tokenizer": None, "side": "left", "pad": 0, "label": "labels"},
    "Comparison": lambda: {"estimate": estimate(), "relation": "> 0", "holds": True},
    "DKDLoss": lambda: {"alpha": 1.0, "beta": 8.0, "temperature": 4.0},
    "DistillationTrainer": trainer,
    "EMA": lambda: {"decay": 0.9},
    "Estimate": lambda: {
        "values": estimate().values,
        "what": "gain",
        "measure": "%",
        "seeds": 1,
        "units": "splits",
    },
    "HiddenLoss": lambda: {
        "distance": kd.features.similarity,
        "pairs": [("1", "3")],
        "weight": 1.0,
        "base": kd.HardLabels(),
        "project": False,
    },
    "KDLoss": lambda: {"temperature": 4.0, "alpha": 0.9, "scale": "T2", "standardise": False},
    "LabelSmoothing": lambda: {"epsilon": 0.1},
    "LayerMap": lambda: {
        "pairs": [(0, 1)],
        "hidden": 1.0,
        "attention": 1.0,
        "embedding": 1.0,
        "project": True,
    },
    "OnPolicy": lambda: {
        "share": 0.5,
        "max_new_tokens": 2,
        "prompt_length": 2,
        "temperature": 1.0,
        "eos": (),
        "pad": 0,
        "seed": 0,
        "long_prompts": "error",
        "top_k": 0,
        "top_p": 0.9,
        "per": "row",
    },
    "OwnLoss": lambda: {"function": own_loss, "temperature": 4.0, "alpha": 0.9},
    "Peers": lambda: {"count": 2},
    "Rationales": lambda: {
        "said": [("What is the last digit of (1 + 2) · 3 + 4?", "3 ends in 3. 9 ends in 9.")]
    },
    "Relations": lambda: {
        "student_layer": -1,
        "teacher_layer": -1,
        "heads": 2,
        "query_key": 1.0,
        "value": 1.0,
    },
    "Runs": lambda: {
        "tasks": [task()],
        "frame": runs().frame,
        "students": runs().students,
        "metrics": ["reads_3"],
        "settings": [],
    },
    "SquaredError": lambda: {"alpha": 0.9},
    "SampledReverseKL": lambda: {"baseline": "mean", "temperature": 1.0},
    "SignalCollator": lambda: {
        "signals": signals(),
        "collator": None,
        "id": "id",
        "label": "labels",
    },
    "TopKLoss": lambda: RIGHT["TokenLoss"](),
    "TokenLoss": lambda: {
        "divergence": kd.forward_kl,
        "alpha": 1.0,
        "temperature": 1.0,
        "scale": "T2",
    },
    "Prompted": lambda: {"teacher": llama(), "prompt": [1, 2]},
    "WithoutAdapter": lambda: {"student": adapted()},
    "accuracy": lambda: {"logits": z(3, 4), "labels": torch.tensor([0, 1, 2])},
    "agreement": lambda: {"logits": z(3, 4), "other": z(3, 4)},
    "align": lambda: {"student_offsets": [(0, 2), (2, 5)], "teacher_offsets": [(0, 5)]},
    "check": lambda: {"name": "04.1", "attempt": ...},
    "cka": lambda: {"x": z(5, 3), "y": z(5, 2)},
    "claim": lambda: {"sentence": "it helps", "comparison": estimate() > 0, "axis": None},
    "compare": lambda: {"estimates": {"a": estimate()}, "delta": 0.5},
    "completions": lambda: {
        "model": llama(),
        "prompts": [[3, 4], [5]],
        "max_new_tokens": 1,
        "temperature": 1.0,
        "top_k": 0,
        "num_beams": 1,
        "eos": (),
        "pad": 0,
        "seed": 0,
        "batch": 2,
        "top_p": 0.9,
    },
    "convnet": lambda: {"*channels": [2, 2], "dropout": 0.1},
    "audit": lambda: {
        "teacher_logits": z(3, 4),
        "student_logits": z(3, 4),
        "labels": torch.tensor([0, 1, 2]),
        "classes": list("abcd"),
        "slices": {"first": [True, False, False]},
    },
    "OnnxModel": lambda: {"path": onnx_file(), "difference": 0.0},
    "model_card": lambda: {
        "name": "small",
        "teacher": "large",
        "data": "digits",
        "objective": kd.KDLoss(),
        "audit": None,
        "costs": None,
        "limits": "",
        "license": "mit",
        "language": "en",
    },
    "report": lambda: {
        "audit": kd.audit(z(3, 4), z(3, 4), torch.tensor([0, 1, 2])),
        "examples": ["one", "two", "three"],
        "path": None,
        "title": "An audit",
    },
    "costs": lambda: {
        "models": {"net": kd.mlp(2)(task())},
        "x": task().train.x[:2],
        "calls": 1,
        "warm_up": 0,
        "price": 1.0,
    },
    "distill": taught,
    "exact_match": lambda: {"answers": ["1"], "right": ["1"], "extract": None},
    "distinct": lambda: {"sequences": [[1, 2, 1]], "n": 2},
    "each": lambda: {"runs": runs(), "tasks": [task()], "on": "train"},
    "ece": lambda: {"logits": z(3, 4), "labels": torch.tensor([0, 1, 2]), "bins": 15},
    "ensemble": lambda: {"teacher_logits": z(2, 3, 4), "of": "probabilities", "temperature": 1.0},
    "entropy": lambda: {"logits": z(3, 4), "temperature": 1.0},
    "fit": fitted,
    "forward_kl": pair,
    "generations": lambda: {
        "student": kd.mlp(2),
        "tasks": task(),
        "count": 2,
        "seeds": 1,
        "temperature": 4.0,
        "alpha": 0.9,
        "epochs": 1,
    },
    "hint": lambda: {"name": "04.1", "step": 1},
    "jsd": lambda: pair(beta=0.5),
    "language_model": lambda: {"name": "topics_lm", "dtype": None},
    "linear_divergence": fused,
    "load": lambda: {
        "name": "digits",
        "seed": 0,
        "labels_per_class": 2,
        "noise": 0.1,
        "leave_out": (1,),
        "sizes": (40, 20, 20),
        "image": None,
        "label": None,
        "resize": None,
    },
    "load_text": lambda: {
        "name": "docstrings",
        "seed": 0,
        "sizes": (20, 10, 10),
        "text": None,
        "label": None,
    },
    "locate": lambda: {"name": "mnist", "variable": "KDLAB_DATA"},
    "log_softmax": lambda: {"logits": z(3, 4), "temperature": 2.0},
    "mask_padding": lambda: {"student_logits": z(3, 4), "teacher_logits": z(3, 6), "vocab_size": 4},
    "mlp": lambda: {"*hidden": [4], "dropout": 0.1},
    "my_split": lambda: {"student": "ada", "default": 0},
    "next_token": lambda: {"logits": z(2, 3, 4), "labels": torch.zeros(2, 3, dtype=torch.long)},
    "nll": lambda: {"logits": z(3, 4), "labels": torch.tensor([0, 1, 2])},
    "parameters": lambda: {"model": torch.nn.Linear(2, 2)},
    "patchnet": lambda: {"neurons": 2},
    "last_number": lambda: {"text": "7"},
    "pass_at_k": lambda: {"right": torch.ones(2, 3).bool(), "k": 2},
    "perplexity": lambda: {"model": llama(), "batch": {k: torch.ones(2, 3).long() for k in BATCH}},
    "plain_text": lambda: {"name": "docstrings", "text": None},
    "predict": lambda: {"name": "03.a"},
    "rationale_loss": lambda: {"student": z(2, 20), "teacher": z(2, 20), "reduction": "mean"},
    "reference": lambda: {"name": "06.1"},
    "relabel": lambda: {"task": task(), "train": task().transfer},
    "reverse_kl": pair,
    "same_tokenizer": lambda: {"a": words("xy"), "b": words("yx"), "probes": ["x y"]},
    "setup": lambda: {"seed": 0},
    "shuffle_wrong_classes": lambda: {
        "teacher_logits": z(3, 4),
        "labels": torch.tensor([0, 1, 2]),
        "seed": 0,
    },
    "skew_forward_kl": lambda: pair(skew=0.1),
    "skew_reverse_kl": lambda: pair(skew=0.1),
    "splits": lambda: {"name": "digits", "count": 2, "sizes": (40, 20, 20)},
    "student_from": lambda: {"teacher": bert(), "layers": None, "every": 2},
    "sweep": lambda: taught(objective=kd.KDLoss),
    "tap": lambda: {"model": torch.nn.Sequential(torch.nn.Linear(2, 2)), "names": ["0"]},
    "text_classifier": lambda: {"name": "docs_bert"},
    "to_rows": lambda: {
        "data": [{"text": "xy"}],
        "tokenizer": words("xy"),
        "learn": "answers",
        "end": False,
        "max_length": 5,
        "too_long": "cut",
    },
    "to_ids": lambda: {"tokens": ["x", "token_id:1"], "tokenizer": words("xy")},
    "to_top_k": lambda: {
        "answer": Answer("x", ["x"], [-0.5], [{"x": -0.5, "y": -1.5}], "stop"),
        "tokenizer": words("xy"),
    },
    "train": lambda: grid(objective=None),
    "tvd": pair,
    "uld": lambda: {
        "student_logits": z(2, 3, 4),
        "teacher_logits": z(2, 5, 6),
        "student_mask": torch.ones(2, 3, dtype=torch.bool),
        "teacher_mask": torch.ones(2, 5, dtype=torch.bool),
        "temperature": 2.0,
        "reduction": "mean",
    },
    "whose": lambda: {"*functions": kd.reference("06.1")},
    "yours": lambda: {"name": "06.1", "attempt": ..., "run": False},
}
TRAINS = "trains students for seconds: show/test_explorer.py has its arguments"
EXCUSED = {
    "Audit": "a dataclass that checks nothing; audit, which makes it, does",
    "Data": "a dataclass that checks nothing; what takes a task checks it",
    "DistillationConfig": "transformers' own; the loss's are those of training/test_config.py",
    "HardLabels": "takes no argument",
    "Objective": "takes no argument",
    "Task": "a dataclass that checks nothing; what takes a task checks it",
    "budget_explorer": "takes no argument",
    "choose_student_explorer": TRAINS,
    "conventions": "takes no argument",
    "course_files": "takes no argument",
    "distillation_race": TRAINS,
    "doctor": "takes no argument",
    "hidden_layers_explorer": TRAINS,
    "peaks_explorer": "takes no argument",
    "pool": "asks a server: its arguments are those of lessons/test_pool.py",
    "pool_explorer": "takes no argument",
    "serve": "starts a server: its arguments are those of teachers/test_server.py",
    "temperature_explorer": TRAINS,
    "to_gguf": "takes seconds a call: evidence/test_gguf_export.py has its arguments",
    "to_onnx": "takes seconds a call: evidence/test_export.py has its arguments",
}
BUILDS = {"mlp", "convnet", "patchnet"}  # what they give is called with a task


def call(name, given):
    """The function with these arguments; a builder is built, a context entered."""
    places = []
    for key, value in given.items():
        if key.startswith("*"):
            places += value if isinstance(value, (list, tuple)) else [value]
    named = {k: v for k, v in given.items() if not k.startswith("*")}
    with contextlib.redirect_stdout(io.StringIO()):
        found = getattr(kd, name)(*places, **named)
        if name in BUILDS:
            found(task())
        elif name == "tap":
            with found:
                pass


def faulty(name, key, value):
    """What is wrong with the answer to one wrong argument; "" where it is a result or kdlab's own
    error."""
    try:
        call(name, RIGHT[name]() | {key: value})
    except OWN as error:
        words = str(error)
        subject = re.match(r"([A-Za-z]\w*)(\.\w+)?: ", words)
        if type(error) not in OWN or not subject or subject[1] not in EXPORTED:
            return f"{type(error).__name__}: {words}"
        argument = key.removeprefix("*")
        return "" if re.search(rf"\b{argument}\b", words) else f"names no {argument}: {words}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_every_callable_that_kd_offers_is_in_the_table():
    assert set(EXPORTED) == set(RIGHT) | set(EXCUSED)


@pytest.mark.parametrize("name", RIGHT)
def test_the_table_knows_every_argument(name):
    parameters = inspect.signature(EXPORTED[name]).parameters.values()
    asked = {
        ("*" if p.kind == p.VAR_POSITIONAL else "") + p.name
        for p in parameters
        if p.kind != p.VAR_KEYWORD
    }
    assert asked <= set(RIGHT[name]())


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_call_works(name):
    call(name, RIGHT[name]())


@pytest.mark.parametrize("name", RIGHT)
def test_a_wrong_argument_gives_a_result_or_an_error_that_names_it(name):
    tried = {(key, bad): faulty(name, key, BAD[bad]) for key in RIGHT[name]() for bad in BAD}
    assert {pair: found for pair, found in tried.items() if found} == {}


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=2)
)
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(torch.zeros)
VALUES = SHAPES | st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
)
PLACES = {
    (loader, "name")
    for loader in ("load", "splits", "load_text", "plain_text", "language_model", "text_classifier")
}  # any text may be a directory, "/" is one


@pytest.mark.parametrize("name", RIGHT)
def test_whatever_comes_for_an_argument_is_a_result_or_an_error_that_names_it(name):
    if not (keys := [key for key in RIGHT[name]() if (name, key) not in PLACES]):
        return

    @given(st.sampled_from(keys), VALUES)
    @settings(max_examples=10 * len(keys))
    def hold(key, value):
        assert faulty(name, key, value) == ""

    hold()
