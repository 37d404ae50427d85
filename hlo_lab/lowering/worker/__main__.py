"""Start a worker: ``python -m hlo_lab.lowering.worker REQUEST.json``, or by this file's path."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    # Started by path, perhaps by another environment's Python: use this copy of hlo_lab,
    # without putting the rest of its folder on the user's sys.path.
    from importlib.util import module_from_spec, spec_from_file_location

    root = Path(__file__).resolve().parents[2]
    spec = spec_from_file_location("hlo_lab", root / "__init__.py")
    assert spec is not None and spec.loader is not None
    package = module_from_spec(spec)
    sys.modules["hlo_lab"] = package
    spec.loader.exec_module(package)

from hlo_lab.lowering.worker.run import main

main(sys.argv[1])
