"""Put back what a submission may have replaced; executed inside its kernel, never imported by
kdlab's own tools.

Before a student's code runs, the functions that checks rely on are noted; before each check they
are put back. It stops `torch.allclose = lambda *a: True` and its like, not somebody who takes the
kernel itself apart."""

import builtins
import sys
import types

PACKAGES = (
    "builtins",
    "math",
    "cmath",
    "statistics",
    "random",
    "copy",
    "torch",
    "torch.nn.functional",
    "torch.testing",
    "torch.special",
    "torch.linalg",
    "torch.autograd",
    "numpy",
    "numpy.testing",
    "numpy.linalg",
)
KINDS = (types.FunctionType, types.BuiltinFunctionType, type)
MISSING = object()


def noted():
    """(module, name, value) of every function and class of the modules above and of kdlab."""
    names = [name for name in sys.modules if name in PACKAGES or name.split(".")[0] == "kdlab"]
    return [
        (sys.modules[name], key, value)
        for name in names
        for key, value in vars(sys.modules[name]).items()
        if isinstance(value, KINDS) or isinstance(value, types.ModuleType) or callable(value)
    ]


def guard(shell):
    """restore(kept, dropped): put everything back; keep(names): values of the notebook's own names
    to keep too."""
    functions, modules = (
        noted(),
        {name: m for name, m in sys.modules.items() if name in PACKAGES or "kdlab" in name},
    )
    code = [
        (f, f.__code__, f.__defaults__)
        for _, _, f in functions
        if isinstance(f, types.FunctionType)
    ]
    patched = [type(shell), *type(shell).__mro__]
    if "torch" in sys.modules:
        patched.append(sys.modules["torch"].Tensor)
    patched += [
        value
        for module, _, value in functions
        if isinstance(value, type)
        and module.__name__.startswith("kdlab")
        and value.__module__.startswith("kdlab")
    ]
    classes = [(cls, dict(vars(cls))) for cls in dict.fromkeys(patched) if cls is not object]
    own, events = (
        dict(vars(shell)),
        {name: list(found) for name, found in shell.events.callbacks.items()},
    )
    lists = [
        (found, list(found))
        for found in (
            shell.ast_transformers,
            shell.input_transformers_post,
            shell.input_transformer_manager.cleanup_transforms,
            shell.input_transformer_manager.line_transforms,
            shell.input_transformer_manager.token_transformers,
        )
    ]
    kept = {}

    def keep(names):
        kept.update({name: shell.user_ns[name] for name in names if name in shell.user_ns})

    def restore(names, dropped):
        sys.settrace(None)
        sys.setprofile(None)
        for module, name, value in functions:
            if vars(module).get(name, MISSING) is not value:
                setattr(module, name, value)
        for function, body, defaults in code:
            if function.__code__ is not body or function.__defaults__ is not defaults:
                function.__code__, function.__defaults__ = body, defaults
        for cls, before in classes:
            for name in [
                name
                for name, value in vars(cls).items()
                if before.get(name, MISSING) is not value
                and (callable(value) or isinstance(value, property) or name in before)
            ]:
                try:
                    setattr(cls, name, before[name]) if name in before else delattr(cls, name)
                except (AttributeError, TypeError):
                    pass  # what Python itself keeps there
        sys.modules.update(modules)
        for name in [
            name for name, value in vars(shell).items() if name not in own and callable(value)
        ]:
            delattr(shell, name)
        for found, before in lists:
            found[:] = before
        for name, before in events.items():
            shell.events.callbacks[name][:] = before
        shell.user_ns.update({name: kept[name] for name in names if name in kept})
        for name in dropped:
            shell.user_ns.pop(name, None)

    return keep, restore


def leave(*_):
    raise SystemExit("exit() was called")


def install(shell, token):
    """Note everything now; the module `token` then offers keep and restore."""
    module = types.ModuleType(token)
    module.keep, module.restore = guard(shell)
    sys.modules[token] = module
    shell.user_ns |= {"exit": leave, "quit": leave}  # the kernel's own would end it after the cell


install(builtins.get_ipython(), token)  # noqa: F821  # the grader's, both
