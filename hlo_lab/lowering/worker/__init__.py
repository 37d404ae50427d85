"""What runs in a process of its own: the user's program, JAX and the compiler.

``python -m hlo_lab.lowering.worker REQUEST.json`` does one request and reports over the
file descriptor that the request names; nothing of hlo-lab but this package and
``lowering.adapter`` imports JAX.
"""
