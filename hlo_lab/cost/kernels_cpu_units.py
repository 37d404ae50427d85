"""The names of the units of work of a kernel of XLA:CPU, which a machine has rates for."""

from __future__ import annotations

from hlo_lab.cost.tables import words

# Functions whose cost is their own; every other elementwise opcode is one cheap operation.
FUNCTIONS = words("""
    divide sqrt rsqrt cbrt exponential exponential-minus-one log log-plus-one tanh logistic sine
    cosine tan power atan2 erf remainder convert
""")

# Bytes are those of every kernel, then of those that come from beyond the second (1) and the
# third cache (2).
_NAMES = """
    kernel.launch kernel.library kernel.operand kernel.inlined
    bytes.near bytes.copied bytes.read_1 bytes.read_2 bytes.written_1 bytes.written_2
    loop.integer_divide loop.narrow_float loop.broadcast loop.iota loop.scalar_cheap
    loop.scalar_function loop.again loop.rsqrt_fast
    move.element move.far_1 move.far_2 move.run move.run_1 move.run_2
    move.fused move.fused_beyond_0 move.fused_beyond_1 move.fused_1 move.fused_2 move.thrash_2
    part.element part.strided part.join part.pad part.reverse
    reduce.library_minor reduce.library_major reduce.library_row reduce.minor reduce.major
    reduce.nested reduce.variadic reduce.variadic_short reduce.row reduce.applied
    window.element window.minor window.nested window.variadic window.output window.library
    row.gather row.gather_1 row.gather_2 row.line row.line_1 row.line_2 row.gather_element
    row.scatter row.scatter_1 row.scatter_2 row.scatter_element
    sort.comparison sort.payload sort.row
    topk.element
    dot.flop dot.padded_flop dot.batch dot.output dot.left dot.left_turned
    dot.right dot.right_1 dot.right_2 dot.right_turned dot.right_turned_1 dot.right_turned_2
    dot.plain_flop dot.plain_batch dot.plain_turned dot.plain_narrow dot.plain_left
    dot.plain_left_turned dot.plain_right dot.plain_right_1 dot.plain_right_2
    dot.plain_right_turned dot.plain_output
    dot.integer_flop dot.byte_flop dot.fused_flop
    vector.element vector.column vector.narrow vector.batch
    convolution.flop convolution.odd convolution.patch convolution.output convolution.row
    convolution.plain_flop convolution.plain_patch convolution.plain_window
    convolution.naive_flop convolution.naive_far
    factor.flop factor.column
    fourier.element
    call.unknown
"""
UNITS: tuple[str, ...] = (
    *_NAMES.split(),
    *(f"{kind}.{name}" for kind in ("loop", "library") for name in ("cheap", *sorted(FUNCTIONS))),
)
NUMBER = {name: number for number, name in enumerate(UNITS)}
