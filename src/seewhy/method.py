"""What a method is: frozen fields, from which its spec string, its JSON form and its place in every list follow."""

from __future__ import annotations

import json
import types
from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, NamedTuple, Union, get_args, get_origin, get_type_hints

from seewhy.errors import SpecError, nearest
from seewhy.units import number

_REGISTRY: dict[str, type[Method]] = {}


@dataclass(frozen=True)
class Method(ABC):
    """A frozen dataclass of plain values and one `__call__`; net and images come at call time.

    A subclass that gives itself a `name` is registered under it. `room` is the user's question that it answers
    ("look", "explain" or "attack"); `shows` and `reading` are the sentences that the report prints: what the method
    shows, and how to read it; `source` is the paper. `bears_bf16` says that its samples may run in bfloat16.
    """

    name: ClassVar[str] = ""
    room: ClassVar[str] = ""
    shows: ClassVar[str] = ""
    reading: ClassVar[str] = ""
    source: ClassVar[str] = ""
    bears_bf16: ClassVar[bool] = False

    def __init_subclass__(cls, **words: Any) -> None:
        super().__init_subclass__(**words)
        if "name" in cls.__dict__ and cls.name:
            known = _REGISTRY.setdefault(cls.name, cls)
            if known.__qualname__ != cls.__qualname__ or known.__module__ != cls.__module__:
                raise SpecError(f'two methods are named "{cls.name}": {known.__module__} and {cls.__module__}')
            _REGISTRY[cls.name] = cls  # dataclass(slots=True) and reloading make the class anew

    @abstractmethod
    def __call__(self, *args: Any, **words: Any) -> Any:
        """Run it on a network, and images; each room says more."""

    @property
    def spec(self) -> str:
        """The method as a string, with the fields that differ from their defaults: `smoothgrad:samples=64`."""
        given = written(self)
        return f"{self.name}:{given}" if given else self.name

    @property
    def passes(self) -> tuple[int, int]:
        """How many images one image costs at most, (forward, backward); of 224 × 224 pixels, where their number matters."""
        return 1, 1

    def passes_on(self, size: tuple[int, int]) -> tuple[int, int]:
        """`passes` for images of (height, width): what a plan reckons with. A method whose cost depends on that overrides it."""
        return self.passes

    def to_json(self) -> dict[str, Any]:
        """The method as plain values, every field written out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain: dict[str, Any] = json.loads(json.dumps({"name": self.name, **values}))
        return plain

    def outside(self) -> dict[str, Any]:
        """What the method reads that its fields only name, as plain values by the fields' names: a file's hash, a composite.

        A run keeps it, so that it is not gone on with when that is another under the same name. Raises what using it would.
        """
        return {}


def registry(room: str = "") -> dict[str, type[Method]]:
    """Every registered method by name, in one room or in all."""
    import seewhy.attack
    import seewhy.explain
    import seewhy.look  # noqa: F401  the rooms register their methods

    return {name: cls for name, cls in _REGISTRY.items() if not room or cls.room == room}


def parse(spec: str, room: str = "") -> Method:
    """Make a method of its spec string, `name` or `name:field=value,field=value`.

    Fractions such as 8/255 are numbers; values of a list are joined by `+`. Raises `SpecError` naming the nearest
    method or field.

    >>> parse("smoothgrad:samples=4").spec
    'smoothgrad:samples=4'
    """
    name, _, options = spec.strip().partition(":")
    known = registry(room)
    if name not in known:
        kind = f"{room} method" if room else "method"
        raise SpecError(f'there is no {kind} "{name}"{nearest(name, known) or "; there are: " + ", ".join(known)}')
    return known[name](**read_options(known[name], options, name))


def read_options(cls: type[Any], text: str, owner: str) -> dict[str, Any]:
    """The fields of a dataclass that `key=value,key=value` gives, read by their types.

    >>> read_options(Method, "", "nothing")
    {}
    """
    hints = get_type_hints(cls)
    allowed = {field.name for field in fields(cls)}
    values: dict[str, Any] = {}
    for option in filter(None, text.split(",")):
        key, equals, value = option.partition("=")
        if not equals or key not in allowed:
            way_out = nearest(key, allowed) or "; its options are: " + (", ".join(sorted(allowed)) or "none")
            raise SpecError(f'{owner} has no option "{option if not equals else key}"{way_out}')
        values[key] = _read(value, hints[key], f"{owner}:{key}")
    return values


def written(value: Any) -> str:
    """The fields of a dataclass that differ from their defaults, as `read_options` reads them."""
    return ",".join(
        f"{field.name}={_write(getattr(value, field.name))}"
        for field in fields(value)
        if getattr(value, field.name) != _default(field)
    )


class Option(NamedTuple):
    """A field of a method as a person sets it: what kind of value it takes, and its default as one writes it."""

    name: str
    kind: str
    default: str


def options(cls: type[Any]) -> tuple[Option, ...]:
    """The options of a method, or of any such dataclass.

    >>> options(registry()["grad-cam"])
    (Option(name='layer', kind='text or none', default='none'),)
    """
    hints = get_type_hints(cls)
    return tuple(Option(each.name, _kind(hints[each.name]), _write(_default(each))) for each in fields(cls))


def from_json(plain: dict[str, Any]) -> Method:
    """The inverse of `Method.to_json`."""
    cls = registry()[plain["name"]]
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items() if key != "name"}
    return cls(**values)


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _kind(hint: Any) -> str:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if part is type(None) else _kind(part) for part in inside)
    if origin is tuple:
        return f"{_kind(inside[0])}s joined by +"
    return {bool: "true or false", int: "whole number", float: "number"}.get(hint, "text")


def _write(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(_write, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        steps = round(value * 510) / 2
        fraction = f"{steps:g}/255"
        exact = 0 < steps <= 32 and steps / 255 == value and len(fraction) < len(repr(value))  # 0.1 stays 0.1
        return fraction if exact else repr(value)
    return str(value)


def _read(text: str, hint: Any, where: str) -> Any:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if text.lower() == "none" and type(None) in inside:
            return None
        return _read(text, next(part for part in inside if part is not type(None)), where)
    if origin is tuple:
        return tuple(_read(part, inside[0], where) for part in text.split("+")) if text else ()
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise SpecError(f'expected true or false for {where}, got "{text}"')
        return text.lower() == "true"
    if hint is int:
        try:
            return int(text)
        except ValueError:
            raise SpecError(f'expected a whole number for {where}, got "{text}"') from None
    if hint is float:
        try:
            return number(text)
        except SpecError as error:
            raise SpecError(f"{where}: {error}") from None
    return text
