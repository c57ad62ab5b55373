"""One wrong argument at a time, for everything that `kd` offers: a result, or an error in kdlab's own words."""

import contextlib
import functools
import inspect
import io
import re

import pandas as pd
import pytest
import torch
import transformers
from bad_inputs_known import KNOWN
from hypothesis import given, settings
from hypothesis import strategies as st
from test_house import EXPORTED

import kdlab as kd

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
    "DISTLoss": lambda: {"beta": 1.0, "gamma": 1.0, "temperature": 1.0},
    "DKDLoss": lambda: {"alpha": 1.0, "beta": 8.0, "temperature": 4.0},
    "DeepToShallow": lambda: {"temperature": 3.0, "alpha": 0.5},
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
    },
    "Peers": lambda: {"count": 2},
    "Relations": lambda: {
        "student_layer": -1,
        "teacher_layer": -1,
        "heads": 2,
        "query_key": 1.0,
        "value": 1.0,
    },
    "Runs": lambda: {"tasks": [task()], "frame": runs().frame, "students": runs().students},
    "SquaredError": lambda: {"alpha": 0.9},
    "TokenLoss": lambda: {
        "divergence": kd.forward_kl,
        "alpha": 1.0,
        "temperature": 1.0,
        "scale": "T2",
    },
    "accuracy": lambda: {"logits": z(3, 4), "labels": torch.tensor([0, 1, 2])},
    "agreement": lambda: {"logits": z(3, 4), "other": z(3, 4)},
    "check": lambda: {"name": "01.1", "attempt": ...},
    "cka": lambda: {"x": z(5, 3), "y": z(5, 2)},
    "claim": lambda: {"sentence": "it helps", "comparison": estimate() > 0},
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
    },
    "convnet": lambda: {"*channels": [2, 2], "dropout": 0.1},
    "distill": taught,
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
    "hint": lambda: {"name": "01.1", "step": 1},
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
    "mlp": lambda: {"*hidden": [4], "dropout": 0.1},
    "nll": lambda: {"logits": z(3, 4), "labels": torch.tensor([0, 1, 2])},
    "parameters": lambda: {"model": torch.nn.Linear(2, 2)},
    "plain_text": lambda: {"name": "docstrings", "text": None},
    "predict": lambda: {
        "question": "Which?",
        "options": ["1", "2"],
        "answer": "2",
        "because": "So.",
    },
    "reverse_kl": pair,
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
    "train": lambda: grid(objective=None),
    "tvd": pair,
    "with_exits": lambda: {"builder": kd.mlp(4), "*layers": ["2"]},
}
NO_ARGUMENTS = {
    "HardLabels": "takes no argument",
    "conventions": "takes no argument",
    "doctor": "takes no argument",
}
SUBJECTS = {*EXPORTED, "DistillationTrainer"}  # what an error may begin with
BUILDS = {"mlp", "convnet", "with_exits"}  # what they give is called with a task


def call(name, given):
    """The function with these arguments; a builder is built, a context entered."""
    places = [given["builder"]] if name == "with_exits" else []
    for key, value in given.items():
        if key.startswith("*"):
            places += value if isinstance(value, (list, tuple)) else [value]
    named = {k: v for k, v in given.items() if not k.startswith("*") and k != "builder"}
    with contextlib.redirect_stdout(io.StringIO()):
        found = getattr(kd, name)(*places, **named)
        if name in BUILDS:
            found(task())
        elif name == "tap":
            with found:
                pass


def faulty(name, key, value):
    """What is wrong with the answer to one wrong argument; "" where it is a result or kdlab's own error."""
    try:
        call(name, RIGHT[name]() | {key: value})
    except OWN as error:
        words = str(error)
        subject = re.match(r"([A-Za-z]\w*)(\.\w+)?: ", words)
        if type(error) not in OWN or not subject or subject[1] not in SUBJECTS:
            return f"{type(error).__name__}: {words}"
        argument = key.removeprefix("*")
        return "" if re.search(rf"\b{argument}\b", words) else f"names no {argument}: {words}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def triples():
    for name, right in RIGHT.items():
        for key in right():
            for bad in BAD:
                yield name, key, bad


def file_of(name):
    return EXPORTED[name].__module__.removeprefix("kdlab.") + ".py"


def mark(name, key, bad):
    """A fault that is known fails until it is mended, and then must leave the list."""
    found = KNOWN.get(file_of(name), {}).get(f"{name}({key})", "").split()
    return pytest.mark.xfail(strict=True) if found == ["all"] or bad in found else ()


def test_every_callable_that_kd_offers_is_in_the_table():
    assert set(EXPORTED) == set(RIGHT) | set(NO_ARGUMENTS)


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


@pytest.mark.parametrize(
    "name, key, bad", [pytest.param(*triple, marks=mark(*triple)) for triple in triples()]
)
def test_a_wrong_argument_gives_a_result_or_an_error_that_names_it(name, key, bad):
    assert faulty(name, key, BAD[bad]) == ""


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
PLACES = {(loader, "name") for loader in ("load", "splits", "load_text", "plain_text", "language_model",
                                           "text_classifier")}  # any text may be a directory, "/" is one
WHOLE = sorted(
    {(name, key) for name, key, _ in triples() if file_of(name) not in KNOWN and (name, key) not in PLACES}
)  # files without faults


@pytest.mark.parametrize("name, key", WHOLE)
def test_whatever_comes_for_an_argument_is_a_result_or_an_error_that_names_it(name, key):
    @given(VALUES)
    @settings(max_examples=25)
    def hold(value):
        assert faulty(name, key, value) == ""

    hold()
