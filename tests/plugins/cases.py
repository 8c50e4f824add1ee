"""Runs the recorded cases of plugins by a host that is not ours: wasmtime's bindings for Python.

cases.py COMPONENT.wasm CASES [COMPONENT.wasm CASES ...]

The format of a case stands in plugins/README.md. Exits with 0 only when there were cases and all were met.
"""

import json
import sys
from pathlib import Path

from wasmtime import Engine, Store, WasmtimeError
from wasmtime.component import Component, Linker, Record, Variant
from wasmtime.component import _types as types

PACKAGE = "sluice:policy/"
VERSION = "@0.0.1"


def to_value(given, ty):
    """The value of a type that a case means; `...` where it says nothing."""
    absent = given is ...
    if isinstance(ty, types.OptionType):
        return None if absent or given is None else to_value(given, ty.payload)
    if isinstance(ty, types.ListType):
        return [] if absent else [to_value(item, ty.element) for item in given]
    if isinstance(ty, types.RecordType):
        return to_record({} if absent else given, ty.fields)
    if isinstance(ty, types.TupleType):
        return tuple(to_value(item, kind) for item, kind in zip(given, ty.elements))
    if isinstance(ty, types.VariantType):
        return to_variant(given, ty.cases)
    if isinstance(ty, types.EnumType):
        return ty.name(0) if absent else given
    if isinstance(ty, types.String):
        return "" if absent else given
    if isinstance(ty, types.Bool):
        return False if absent else given
    return 0 if absent else given


def to_record(given, fields):
    unknown = set(given) - {name for name, _ in fields}
    if unknown:
        raise ValueError(f"{sorted(unknown)} is none of {[name for name, _ in fields]}")
    record = Record()
    for name, ty in fields:
        setattr(record, name, to_value(given.get(name, ...), ty))
    return record


def to_variant(given, cases):
    if given is ...:
        name, inner = cases[0][0], ...
    elif isinstance(given, str):
        name, inner = given, ...
    else:
        [(name, inner)] = given.items()
    ty = dict(cases)[name]
    return Variant(name, None if ty is None else to_value(inner, ty))


def to_json(value):
    if isinstance(value, Record):
        return {name: to_json(inner) for name, inner in value.__dict__.items()}
    if isinstance(value, Variant):
        return value.tag if value.payload is None else {value.tag: to_json(value.payload)}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def difference(expected, found, at=""):
    """Where an answer does not hold what is expected of it; "" when it does."""
    if isinstance(expected, dict) and isinstance(found, dict):
        inner = (difference(value, found.get(key), f"{at}/{key}") for key, value in expected.items())
        return next((what for what in inner if what), "")
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        inner = (difference(one, other, f"{at}/{n}") for n, (one, other) in enumerate(zip(expected, found)))
        return next((what for what in inner if what), "")
    if expected == found:
        return ""
    return f"{at or 'the answer'}: expected {json.dumps(expected)}, found {json.dumps(found)}"


def instantiate(engine, component, settings):
    store, linker = Store(engine), Linker(engine)
    imports = {
        "settings": {"document": lambda _: settings, "get": lambda _, key: None},
        "logging": {"log": lambda _, level, message: None},
        "metrics": {"add": lambda _, counter, labels, delta: None},
    }
    with linker.root() as root:
        for name, functions in imports.items():
            with root.add_instance(f"{PACKAGE}{name}{VERSION}") as instance:
                for function, run in functions.items():
                    instance.add_func(function, run)
    return store, linker.instantiate(store, component)


def run(engine, component, case):
    """What is wrong with the answer; "" when nothing is."""
    settings = json.dumps(case.get("settings", {}))
    store, instance = instantiate(engine, component, settings)
    interface, name = case["hook"].split(".")
    index = instance.get_export_index(store, f"{PACKAGE}{interface}{VERSION}")
    function = instance.get_func(store, instance.get_export_index(store, name, index))
    given = case.get("arguments", {})
    if case["hook"] == "setup.validate-settings":
        given = {"document": settings}
    parameters = function.type(store).params
    unknown = set(given) - {parameter for parameter, _ in parameters}
    if unknown:
        return f"{sorted(unknown)} is no parameter of {case['hook']}"
    arguments = [to_value(given.get(parameter, ...), ty) for parameter, ty in parameters]
    return difference(case["expect"], to_json(function(store, *arguments)))


def main(arguments):
    engine = Engine()
    passed, failed = 0, 0
    for file, folder in zip(arguments[::2], arguments[1::2], strict=True):
        component = Component.from_file(engine, file)
        for path in sorted(Path(folder).glob("*.json")):
            written = json.loads(path.read_text())
            for case in written if isinstance(written, list) else [written]:
                try:
                    wrong = run(engine, component, case)
                except (WasmtimeError, ValueError, KeyError, TypeError) as error:
                    wrong = str(error)
                passed, failed = passed + (not wrong), failed + bool(wrong)
                if wrong:
                    print(f"{path}: {case['description']}: {wrong}")
    print(f"{passed} cases met, {failed} not")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
