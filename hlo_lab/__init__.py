"""See what XLA does with a JAX program.

``hlo_lab.api`` has one function per command; ``hlo_lab.ir`` reads modules into tables.
"""

__version__ = "0.1.0"
