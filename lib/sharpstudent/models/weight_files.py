"""Reads weights as people publish them: names of tensors, which of several sets is meant, what lies beside them.

A file may wrap its tensors (`model`, `state_dict`, ...) and prefix their names (PREFIXES, MARKERS). It may hold
averaged weights (EMA) beside the plain ones; the plain ones are taken unless `use_ema` asks for the others, and a note
says which.

As a script it takes the tensors out of a file that holds more than plain data, such as a whole model. No object of the
file is built and nothing in it is run: in place of every class and function stands one that does nothing.

    python -m sharpstudent.models.weight_files FILE OUT.safetensors [--part generator]
"""

from __future__ import annotations

import pickle
import re
import shlex
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, _utils

from sharpstudent.core.archive import (
    check_tensors,
    find_file,
    is_safetensors,
    load_plain,
    read_about,
    seal_safetensors,
    verify,
)
from sharpstudent.core.errors import UserError, exit_codes
from sharpstudent.core.files import parse_json, read_json
from sharpstudent.core.io import compute_sha256, write_bytes_atomically
from sharpstudent.core.naming import printable_lines

WRAPPERS = ("model", "state_dict", "model_state_dict", "module", "net", "network", "params", "weights")
PREFIXES = ("module.", "net.", "model.", "student.", "backbone.", "efficientnet.")
# Parts that torch.compile, FSDP and activation checkpointing put before the names of any module, also an inner one.
MARKERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
RENAMED = {"last_layer.weight": "_fc.weight", "last_layer.bias": "_fc.bias"}  # in published detectors
EXAMPLES = 3
MOST_DEPTH = 5  # of tables within tables
_AVERAGED = re.compile(r"(?i)(?:.*_)?(?:ema|averaged?|swa|polyak)(?:_.*)?")
_NO_WEIGHTS = re.compile(r"(?i).*(?:optim|sched|scaler|rng|random|criterion|loss|metric|callback|hyper|param_groups).*")


def normalise(key: str) -> str:
    """Remove markers and prefixes from the name of a tensor, and give that of a renamed head its usual name."""
    name = re.sub(f"^({'|'.join(map(re.escape, PREFIXES))})+", "", MARKERS.sub("", key))
    return RENAMED.get(name, name)


def read_tensors(path: Path, say: Callable[[str], None] | None = None, *, use_ema: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a file of weights, by whatever program and name. Never runs code from it.

    Args:
        path: The file, or the folder that holds it (`core.archive.find_file`).
        say: Called with a note if the file could not be verified, its JSON was written with another save, or it holds
            averaged weights beside others.
        use_ema: Whether averaged weights are wanted where the file has both.

    Returns:
        The tensors by name, without their wrapper.

    Raises:
        UserError: For a file that is missing, damaged, or not a file of weights, and for weights that are NaN or
            infinite.
    """
    path = find_file(path)
    notes = list(verify(path))
    if path.name.endswith(".index.json"):
        found: Any = _read_shards(path, notes)
    else:
        found = read_safetensors(path) if is_safetensors(path) else load_plain(path)
    tensors, more = unwrap_tensors(found, where=str(path), use_ema=use_ema)
    check_finite(tensors, path)
    for note in (*notes, *more):
        if say is not None:
            say(note)
    return tensors


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError for weights that are NaN or infinite."""
    bad = [key for key, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise UserError.about(
            where=str(path),
            what=f"{len(bad)} of its {len(tensors)} tensors hold values that are no numbers (NaN or infinite)",
            got=", ".join(bad[:EXAMPLES]) + (", ..." if len(bad) > EXAMPLES else ""),
            remedy="take an earlier checkpoint of the run",
        )


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a file of safetensors. Raises UserError where it cannot be read."""
    import safetensors
    from safetensors.torch import load

    try:
        found = load(path.read_bytes())  # not by load_file, because torch maps that file only by its usual ending
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError.about(
            where=str(path), what="cannot be read as safetensors", got=str(error), remedy="download it again"
        ) from None
    check_tensors(path, found)
    return found


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts in the header of a file of safetensors."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _read_shards(path: Path, notes: list[str]) -> dict[str, Tensor]:
    """Read the files that the index of a Hugging Face folder names."""
    try:
        names = sorted(set(read_json(path)["weight_map"].values()))
        if any(Path(name).name != name or name.endswith(".json") for name in names):
            raise ValueError("it names a file outside its folder, or another index")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError.about(str(path), "is no index of weights", got=str(error), remedy="download it again") from None
    notes.append(f"{path.name}: the weights lie in {len(names)} files beside it, which its sha256 does not cover")
    return {key: tensor for name in names for key, tensor in read_tensors(path.parent / name, notes.append).items()}


def read_timm_config(path: Path) -> dict[str, Any]:
    """Read what the `config.json` of a Hugging Face folder says of a timm model; {} where there is none.

    Args:
        path: The file of weights beside it.

    Returns:
        `architecture`, and where they are stated `input_size` [px], `mean`, `std` and `classes`.
    """
    try:
        stated = read_json(path.parent / "config.json")
        form = stated.get("pretrained_cfg", {})
        found = {"architecture": stated["architecture"], "input_size": form["input_size"][-1]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return {}
    found |= {name: tuple(form[name]) for name in ("mean", "std") if form.get(name)}
    names = stated.get("label_names") or form.get("label_names")
    return found | ({"classes": tuple(names)} if isinstance(names, list) else {})


def read_statement(path: Path) -> dict[str, Any] | None:
    """Read what a checkpoint of this program states of its model.

    Args:
        path: The file: a .pth, with or without the JSON beside it, or a .safetensors.

    Returns:
        `architecture`, `task` (None where it is not said), `options` and `facts` ({} likewise); None for a file that
        does not describe itself.
    """
    about: Any = read_about(path)
    try:
        if about is None and is_safetensors(path):
            about = read_metadata(path)
        elif about is None and path.suffix == ".pth":
            about = parse_json(load_plain(path).get("about", "{}"))
        if not about or "architecture" not in about:
            return None
        groups = {name: about.get(name, {}) for name in ("options", "facts")}
        groups = {name: parse_json(one) if isinstance(one, str) else one for name, one in groups.items()}
        if not all(isinstance(one, dict) for one in groups.values()):
            return None
        return {"architecture": about["architecture"], "task": about.get("task"), **groups}
    except (AttributeError, TypeError, ValueError):
        return None


def read_stated_options(path: Path) -> dict[str, Any] | None:
    """Read the options that a checkpoint states for its model; {} for none, None where it does not describe itself."""
    stated = read_statement(path)
    return None if stated is None else stated["options"]


Sets = dict[tuple[str, ...], dict[str, Tensor]]


def unwrap_tensors(found: Any, *, where: str, use_ema: bool = False) -> tuple[dict[str, Tensor], list[str]]:
    """Take the named tensors of one model out of what was read from a file.

    Args:
        found: What was read.
        where: The file, for messages.
        use_ema: Whether averaged weights are wanted where there are both.

    Returns:
        The tensors, and notes on the choice.

    Raises:
        UserError: Where there are no tensors, or those of several models.
    """
    sets: Sets = {path: tensors for path, tensors in _find_sets(found) if any(one.ndim for one in tensors.values())}
    averaged = {path: one for path, one in sets.items() if any(map(_AVERAGED.fullmatch, path))}
    plain = {path: one for path, one in sets.items() if path not in averaged}
    if not plain and len(averaged) == 1:
        return next(iter(averaged.values())), [f"{where}: its only weights are averaged ones (`{_name(averaged)}`)"]
    if not plain:
        raise _refuse_contents(found, averaged, where)
    chosen = _choose_set(plain)
    if chosen is None:
        raise _refuse_contents(found, plain, where)
    tensors, inner = _split_averaged(chosen)
    averaged |= inner
    if use_ema:
        if len(averaged) != 1:
            raise _refuse_averages(averaged, where)
        tensors = _overlay(tensors, next(iter(averaged.values())))
        return tensors, [f"{where}: its averaged weights (`{_name(averaged)}`) are taken, as use_ema asks"]
    notes = [f"{where}: its plain weights are taken; use_ema takes the averaged ones (`{_name(averaged)}`)"]
    return tensors, notes if averaged else []


def _find_sets(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Find every table with tensors among tables within tables, except those of optimisers and the like."""
    if not isinstance(found, Mapping) or len(path) > MOST_DEPTH:
        return
    own = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if own:
        yield path, own
    for key, value in found.items():
        if isinstance(key, str) and not _NO_WEIGHTS.fullmatch(key):
            yield from _find_sets(value, (*path, key))


def _choose_set(sets: Sets) -> dict[str, Tensor] | None:
    """Choose the table that the usual names lead to, else the only one; None for several others."""
    path: tuple[str, ...] = ()
    while path not in sets:
        further = [(*path, name) for name in WRAPPERS if any(one[: len(path) + 1] == (*path, name) for one in sets)]
        if not further:
            return next(iter(sets.values())) if len(sets) == 1 else None
        path = further[0]
    return sets[path]


def _split_averaged(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Sets]:
    """Separate averaged copies whose names have a prefix, such as `model_ema.`, from the plain tensors."""
    parts: Sets = {}
    for key, tensor in tensors.items():
        words = key.split(".")
        depth = next((i for i, word in enumerate(words[:3]) if _AVERAGED.fullmatch(word)), None)
        path = () if depth is None else tuple(words[: depth + 1])
        parts.setdefault(path, {})[key.removeprefix(".".join(path)).removeprefix(".")] = tensor
    plain = parts.pop((), {})
    # A part of an architecture may be called `ema`, too: a copy has the names and shapes of the plain tensors.
    forms = {(name, plain[key].shape) for name, key in _name_inner(plain).items()}
    copies: Sets = {}
    for path, part in parts.items():
        if 2 * len(forms & {(name, part[key].shape) for name, key in _name_inner(part).items()}) > len(part):
            copies[path] = part
    kept = {key: tensor for key, tensor in tensors.items() if not any(key.startswith(_lead(path)) for path in copies)}
    return kept, copies


def _lead(path: tuple[str, ...]) -> str:
    return ".".join(path) + "."


def _name_inner(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name the tensors of plain weights and of their average alike; returns the key of each.

    The prefix that all have is left out, and so are the dots, which some programs drop in the names of an average.
    """
    words = {key: MARKERS.sub("", key).split(".") for key in tensors}
    deep = [one for one in words.values() if len(one) > 1]  # not the counters beside them
    depth = 0
    while deep and len({one[depth] if depth < len(one) - 1 else "" for one in deep} | {""}) == 2:
        depth += 1
    return {"".join(one[depth:] if len(one) > 1 else one): key for key, one in words.items()}


def _overlay(plain: Mapping[str, Tensor], averaged: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put averaged tensors in the place of the plain ones; an average often leaves buffers out."""
    inner, sources = _name_inner(plain), _name_inner(averaged)
    replaced = {inner[name]: averaged[sources[name]] for name in inner.keys() & sources.keys()}
    return {key: replaced.get(key, tensor) for key, tensor in plain.items()} if replaced else dict(averaged)


def _name(sets: Sets) -> str:
    return "`, `".join(".".join(path) for path in sets)


def _refuse_averages(averaged: Sets, where: str) -> UserError:
    several = f"holds {len(averaged)} averages of its weights: `{_name(averaged)}`"
    return UserError.about(
        where=f"{where}: use_ema",
        what=several if averaged else "is set, and the file holds no averaged weights beside the plain ones",
        remedy=f"take one out: {_describe_script(where)} --part NAME" if averaged else "leave use_ema out",
    )


def _refuse_contents(found: Any, sets: Sets, where: str) -> UserError:
    if sets:
        return UserError.about(
            where=where,
            what=f"holds the weights of {len(sets)} models, and its names do not say which is meant",
            got=", ".join(f"`{'.'.join(path) or '(top)'}`: {len(one)} tensors" for path, one in sets.items()),
            remedy=f"take one out: {_describe_script(where)} --part NAME",
        )
    return UserError.about(
        where=where,
        what="holds no weights",
        expected=f"named tensors, plain or under one of {', '.join(WRAPPERS)}",
        got=f"keys {list(found)[:EXAMPLES]}" if isinstance(found, Mapping) else type(found).__name__,
        remedy="give a checkpoint that torch.save(model.state_dict(), FILE) or this program wrote",
    )


def _describe_script(where: str) -> str:
    return f"python -m sharpstudent.models.weight_files '{where}' '{Path(where).with_suffix('')}_part.safetensors'"


class _Inert:
    """Stands for an object of any class of a file; keeps what the pickle gives to it, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        made = super().__new__(cls)
        made.entries = {}
        return made

    entries: dict[Any, Any]

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return _Inert()

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            self.__dict__.update({k: v for k, v in part.items() if k != "entries"} if isinstance(part, dict) else {})

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def append(self, _: Any) -> None:
        """Take an element of a list; it is not kept."""

    extend = add = append


def _rebuild(name: str) -> Callable[..., Any]:
    """Wrap a function of torch that builds a tensor, so that no pickle can change the function itself."""
    function = getattr(_utils, name)
    return lambda *args: function(*args)


class _InertUnpickler(pickle.Unpickler):
    """Builds tensors and plain containers; every other class or function of the file becomes one that does nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or function; torch resolves storages before it asks here."""
        plain = {"collections.OrderedDict": OrderedDict, "builtins.set": set, "__builtin__.set": set}
        if f"{module}.{name}" in plain:
            return plain[f"{module}.{name}"]
        tensors = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
        if module == "torch._utils" and name in tensors:
            return _rebuild(name)
        return type(name, (_Inert,), {"__module__": "inert"})


def read_inert(path: Path) -> Any:
    """Read any file of torch.save with the tensors that are in it, and run nothing in it.

    Args:
        path: The file.

    Returns:
        Tables of tensors; a whole model is the table of its state.

    Raises:
        UserError: For a damaged file, and for a TorchScript archive, whose code cannot be left out.
    """
    verify(path)
    if is_safetensors(path):
        return read_safetensors(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise UserError.about(
                    str(path),
                    "is a TorchScript archive, which is a program with its weights",
                    remedy=f"where you trust it: python -c {shlex.quote(_write_conversion(path))}",
                )
    loader = types.SimpleNamespace(Unpickler=_InertUnpickler, load=lambda file, **_: _InertUnpickler(file).load())
    loader.__name__ = "inert"
    try:
        # Not `weights_only`, which refuses such files whole: what it guards against, classes and functions of the file,
        # the unpickler above never looks up.
        found = torch.load(path, map_location="cpu", pickle_module=loader, weights_only=False)
    except Exception as error:  # noqa: BLE001 (hostile bytes can raise any exception; each becomes a message)
        text = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError.about(str(path), "cannot be read", got=text, remedy="download it again") from None
    return _to_plain(found)


def _write_conversion(path: Path) -> str:
    """Write the program that takes the tensors out of a TorchScript archive; it writes them beside the archive."""
    target = str(path.with_name(f"{path.stem}.tensors.pth"))
    return f"import torch; torch.save(dict(torch.jit.load({str(path)!r}).state_dict()), {target!r})"


def _to_plain(found: Any) -> Any:
    """Turn what stands for a model into the table of its state, and other objects with entries into tables."""
    if isinstance(found, _Inert):
        return _list_state(found) if "_modules" in vars(found) else _to_plain(found.entries)
    if isinstance(found, Mapping):
        return {key: _to_plain(value) for key, value in found.items()}
    return found


def _list_state(module: Any) -> dict[str, Tensor]:
    """List the tensors of a module as its `state_dict` would."""
    state = vars(module)
    left_out = state.get("_non_persistent_buffers_set") or ()
    own = {**(state.get("_parameters") or {}), **(state.get("_buffers") or {})}
    found = {name: one.detach() for name, one in own.items() if isinstance(one, Tensor) and name not in left_out}
    for name, inner in (state.get("_modules") or {}).items():
        if isinstance(inner, _Inert):
            found |= {f"{name}.{key}": tensor for key, tensor in _list_state(inner).items()}
    return found


def _take_part(found: Any, part: str, where: str) -> dict[str, Tensor]:
    """Take the tensors under a name: that of a table, or the first part of the tensors' own names."""
    flat = {".".join((*path, key)): tensor for path, one in _find_sets(found) for key, tensor in one.items()}
    taken = {key.removeprefix(f"{part}."): tensor for key, tensor in flat.items() if key.startswith(f"{part}.")}
    if not taken:
        parts = ", ".join(sorted({key.partition(".")[0] for key in flat})[:8])
        raise UserError.about(f"--part {part}", f"names nothing in {where}", f"one of {parts}", remedy="name a part")
    return taken


def main() -> None:
    """Write the tensors of a file alone, as safetensors."""
    from safetensors.torch import save

    from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path

    parser = Parser("-m sharpstudent.models.weight_files", str(__doc__).rpartition("\n\n    ")[0], more=EXIT_CODES)
    parser.add_argument("file", metavar="FILE", type=read_path, help="weights with other objects, or a whole model")
    parser.add_argument("out", metavar="OUT", type=read_path, help="the .safetensors to write")
    parser.add_argument(
        "--part", metavar="NAME", help="the table or prefix of tensors to take, where there are several"
    )
    read = parser.read(sys.argv[1:])
    path = find_file(read.file)
    if read.out.exists():
        raise UserError.about(str(read.out), "exists already", remedy="name another file, or remove it")
    found, notes = read_inert(path), []
    if read.part is None:
        tensors, notes = unwrap_tensors(found, where=str(path))
    else:
        tensors = _take_part(found, read.part, str(path))
    # Cloned, because the format refuses tensors that share memory.
    content = save({key: tensor.contiguous().clone() for key, tensor in tensors.items()})
    about = {"format": "pt", "source": path.name, "source_sha256": compute_sha256(path)}
    write_bytes_atomically(read.out, seal_safetensors(content, about))
    lines = [*notes, f"wrote {read.out}: {len(tensors)} tensors of {path.name}; nothing in it was run"]
    print(printable_lines("\n".join(lines)))


if __name__ == "__main__":
    with exit_codes():
        main()
