"""A reader of pickles that calls nothing a file names.

A pickle is a program whose instructions name functions and classes to call. Here its instructions
are carried out by a machine of our own, which knows a short table of constructors (of tensors, of
numpy's plain arrays and scalars, and of Python's containers). Whatever else a file names becomes a
`Stub`, which remembers what it was given and does nothing.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from eosin.weights.inert_values import BUILDERS, CONSTANTS, NumpyArray, NumpyType


@dataclass(eq=False, repr=False)
class Stub:
    """A foreign object that was not made.

    Attributes:
        name: what the file names, such as `argparse.Namespace`.
        arguments: what it would have been called with.
        state: what it would have been given afterwards: its attributes, mostly.
        items: what would have been appended or set.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list[Any])

    def __repr__(self) -> str:
        return f"<{self.name}, not made>"


class Named(NamedTuple):
    """Something that a file names and that was not called yet."""

    name: str


class _Mark:
    """Where on the stack a group of values begins."""


_MARK = _Mark()
_PLAIN = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
)
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class InertUnpickler:
    """Carries out the instructions of one pickle.

    Args:
        persistent: gives what a persistent identifier stands for; in files of PyTorch, a storage.
    """

    def __init__(self, persistent: Callable[[Any], Any]) -> None:
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._carry_out: dict[str, Callable[[Any], Any]] = {
            "GLOBAL": lambda argument: self._push_named(*argument.split(" ", 1)),
            "STACK_GLOBAL": lambda _: self._push_named(*self._pop_several(2)),
            "REDUCE": lambda _: self._call(*self._pop_several(2)),
            "NEWOBJ": lambda _: self._call(*self._pop_several(2)),
            "NEWOBJ_EX": self._call_with_keywords,
            "INST": self._call_marked,
            "OBJ": lambda _: self._call_first(self._pop_to_mark()),
            "BUILD": lambda _: self._set_state(self._stack.pop()),
            "PERSID": lambda argument: self._stack.append(self._persistent(argument)),
            "BINPERSID": lambda _: self._stack.append(self._persistent(self._stack.pop())),
            "MARK": lambda _: self._stack.append(_MARK),
            "POP": lambda _: self._stack.pop(),
            "POP_MARK": lambda _: self._pop_to_mark(),
            "DUP": lambda _: self._stack.append(self._stack[-1]),
            "EMPTY_LIST": lambda _: self._stack.append([]),
            "EMPTY_DICT": lambda _: self._stack.append({}),
            "EMPTY_SET": lambda _: self._stack.append(set()),
            "LIST": lambda _: self._stack.append(self._pop_to_mark()),
            "TUPLE": lambda _: self._stack.append(tuple(self._pop_to_mark())),
            "FROZENSET": lambda _: self._stack.append(frozenset(self._pop_to_mark())),
            "DICT": lambda _: self._stack.append(_paired(self._pop_to_mark())),
            "TUPLE1": lambda _: self._stack.append(tuple(self._pop_several(1))),
            "TUPLE2": lambda _: self._stack.append(tuple(self._pop_several(2))),
            "TUPLE3": lambda _: self._stack.append(tuple(self._pop_several(3))),
            "APPEND": lambda _: self._add(self._pop_several(1)),
            "APPENDS": lambda _: self._add(self._pop_to_mark()),
            "ADDITEMS": lambda _: self._add(self._pop_to_mark()),
            "SETITEM": lambda _: self._set_items(self._pop_several(2)),
            "SETITEMS": lambda _: self._set_items(self._pop_to_mark()),
            "MEMOIZE": lambda _: self._remember(len(self._memo)),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._remember),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), self._recall),
            **dict.fromkeys(("PROTO", "FRAME"), lambda _: None),
            **dict.fromkeys(_PLAIN, self._stack.append),
        }

    def load(self, stream: IO[bytes]) -> Any:
        """Reads one pickle and leaves the stream after it.

        Raises:
            ValueError: the pickle is damaged, or does what files of weights do not.
            IndexError, KeyError, TypeError: likewise.
        """
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if name == "STOP":
                return self._stack.pop()
            if name in _VALUES:
                self._stack.append(_VALUES[name])
            elif name in self._carry_out:
                self._carry_out[name](argument)
            else:
                raise ValueError(f"it has the instruction {name}")
        raise ValueError("it has no end")

    def _push_named(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        self._stack.append(CONSTANTS.get(full, Named(full)))

    def _call(self, what: Any, arguments: Any) -> None:
        """Makes what the table knows, and a stub of anything else, whatever the file calls."""
        if not isinstance(arguments, tuple):
            raise ValueError("it calls something with arguments that are no tuple")
        self._stack.append(_made(what, arguments))

    def _call_with_keywords(self, _: Any) -> None:
        what, arguments, keywords = self._pop_several(3)
        self._stack.append(Stub(_name_of(what), tuple(arguments), keywords))

    def _call_marked(self, argument: str) -> None:
        self._call(Named(argument.replace(" ", ".", 1)), tuple(self._pop_to_mark()))

    def _call_first(self, group: list[Any]) -> None:
        self._call(group[0], tuple(group[1:]))

    def _set_state(self, state: Any) -> None:
        target = self._stack[-1]
        if isinstance(target, Stub):
            target.state = state
        elif isinstance(target, NumpyArray | NumpyType):
            self._stack[-1] = target.with_state(state)
            self._replace_in_memo(target, self._stack[-1])

    def _replace_in_memo(self, old: Any, new: Any) -> None:
        """What was just remembered is what is given its state."""
        for key in reversed(self._memo):
            if self._memo[key] is old:
                self._memo[key] = new
                return

    def _add(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            target.update(values)
        elif isinstance(target, Stub):
            target.items.extend(values)
        else:
            raise ValueError("it appends to what is no list")

    def _set_items(self, flat: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update(_paired(flat))
        elif isinstance(target, Stub):
            target.items.extend(_paired(flat).items())
        else:
            raise ValueError("it sets items of what is no table")

    def _remember(self, index: Any) -> None:
        self._memo[int(index)] = self._stack[-1]

    def _recall(self, index: Any) -> None:
        self._stack.append(self._memo[int(index)])

    def _pop_several(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("it takes more values than it has")
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _pop_to_mark(self) -> list[Any]:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _MARK:
                values = self._stack[index + 1 :]
                del self._stack[index:]
                return values
        raise ValueError("it has a group without a beginning")


def _made(what: Any, arguments: tuple[Any, ...]) -> Any:
    if isinstance(what, Named):
        if what.name == "torch._tensor._rebuild_from_type_v2" and len(arguments) == 4:
            return _made(arguments[0], tuple(arguments[2]))
        if what.name in BUILDERS and not (arguments and isinstance(arguments[0], Stub)):
            return BUILDERS[what.name](*arguments)
    return Stub(_name_of(what), arguments)


def _name_of(what: Any) -> str:
    return what.name if isinstance(what, Named | Stub) else type(what).__name__


def _paired(flat: list[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
