"""The text of ``--args``: shapes and plain values, written like a Python call.

    f32[8,128], i32[8]                two arrays
    {'w': f32[4,4], 'b': f32[4]}      a pytree: dicts, lists and tuples nest
    f32[8], 3, 'relu'                 Python values; static for a function not yet jitted
    x=f32[8], training=True           by parameter name
    f32[]                             a traced scalar

Element types are XLA's names (``f32``, ``bf16``, ``s32``, ``u8``, ``pred``), their
common aliases (``i32``, ``bool``) or numpy's (``float32``); ``key[]`` is a PRNG key.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hlo_lab.errors import UseError

_FLOAT8 = ["e3m4", "e4m3", "e4m3fn", "e4m3fnuz", "e4m3b11fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"]
_NUMPY_NAMES = {
    "pred": "bool", "bool": "bool", "key": "key",
    "bf16": "bfloat16", "f16": "float16", "f32": "float32", "f64": "float64",
    "c64": "complex64", "c128": "complex128",
    **{f"{letter}{bits}": f"int{bits}" for letter in "is" for bits in (2, 4, 8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}" for bits in (2, 4, 8, 16, 32, 64)},
    **{f"f8{kind}": f"float8_{kind}" for kind in _FLOAT8},
    "f4e2m1fn": "float4_e2m1fn",
}  # fmt: skip
_DTYPES = {**{name: name for name in _NUMPY_NAMES.values()}, **_NUMPY_NAMES}
_NARROWER = {
    "float64": "float32", "int64": "int32", "uint64": "uint32", "complex128": "complex64",
}  # fmt: skip
_SHORT_NAMES = {
    name: short for short, name in _NUMPY_NAMES.items() if not short.startswith(("i", "bool"))
}


@dataclass(frozen=True)
class ArraySpec:
    """An array that is never allocated: numpy's name of its element type, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def short_shape(dtype: str, shape: Sequence[int]) -> str:
    """A shape as ``--args`` and HLO write it: ``f32[8,128]`` for numpy's ``float32``."""
    return f"{_SHORT_NAMES.get(dtype, dtype)}[{','.join(map(str, shape))}]"


def narrowed(text: str, dtypes: Collection[str]) -> str | None:
    """What to say where ``--args`` names 64-bit types that JAX took as 32 bits; else None.

    Args:
        dtypes: numpy's names of the element types that the program got.
    """
    lost = sorted(
        {leaf.dtype for leaf in _leaves(parse_arguments(text)) if isinstance(leaf, ArraySpec)}
        & _NARROWER.keys() - set(dtypes)
    )
    if not lost:
        return None
    wide = ", ".join(_SHORT_NAMES[name] for name in lost)
    narrow = ", ".join(_SHORT_NAMES[_NARROWER[name]] for name in lost)
    return f"--args has {wide}, which JAX takes as {narrow}: set JAX_ENABLE_X64=1 for 64 bits"


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        yield value
        return
    for item in value:
        yield from _leaves(item)


def parse_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Read ``--args`` into positional and keyword arguments, with ``ArraySpec`` leaves.

    Raises:
        UseError: the text is not in the syntax of this module.
    """
    try:
        # f32[] is no Python expression; f32[()] means the same and is one
        tree = ast.parse(f"f({_EMPTY.sub(_fill, text)}\n)", mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UseError(f"--args {text!r}: not of the form 'f32[8,128], i32[8]'") from None
    call = tree.body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise UseError(f"--args {text!r}: not of the form 'f32[8,128], i32[8]'")
    reader = _Reader(text)
    positional = tuple(reader.value(node) for node in call.args)
    named = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise UseError(f"--args {text!r}: ** is not understood")
        named[keyword.arg] = reader.value(keyword.value)
    return positional, named


_EMPTY = re.compile(r"""('[^']*'|"[^"]*")|(\w)\[\s*\]""")


def _fill(match: re.Match[str]) -> str:
    return match[1] or f"{match[2]}[()]"


class _Reader:
    def __init__(self, text: str):
        self.text = text

    def fail(self, why: str) -> UseError:
        return UseError(f"--args {self.text!r}: {why}")

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Subscript(value=ast.Name(id=dtype)):
                return ArraySpec(self.dtype(dtype), self.shape(node.slice))
            case ast.Name(id=dtype):
                if dtype in _DTYPES:
                    raise self.fail(f"a scalar is written {dtype}[]")
                raise self.fail(f"{dtype} is neither a shape nor a value; quote a string")
            case ast.Dict() if None not in node.keys:
                keys = [self.key(key) for key in node.keys if key is not None]
                return dict(zip(keys, map(self.value, node.values), strict=True))
            case ast.List():
                return [self.value(item) for item in node.elts]
            case ast.Tuple():
                return tuple(self.value(item) for item in node.elts)
        return self.literal(node)

    def dtype(self, name: str) -> str:
        if name not in _DTYPES:
            raise self.fail(f"unknown element type {name}; use f32, bf16, i32, u8, bool, ...")
        return _DTYPES[name]

    def shape(self, node: ast.expr) -> tuple[int, ...]:
        value = self.literal(node)
        dims = value if isinstance(value, tuple) else (value,)
        if not all(type(dim) is int and dim >= 0 for dim in dims):
            raise self.fail(f"{ast.unparse(node)} is not a list of dimensions")
        return dims

    def key(self, node: ast.expr) -> str | int:
        value = self.literal(node)
        if not isinstance(value, str | int):
            raise self.fail(f"{ast.unparse(node)} is not a key; use a string or a number")
        return value

    def literal(self, node: ast.expr) -> Any:
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, RecursionError):
            raise self.fail(f"{ast.unparse(node)} is neither a shape nor a value") from None
