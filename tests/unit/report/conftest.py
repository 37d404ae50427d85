from __future__ import annotations

import sys
from pathlib import Path

# helper modules beside the tests, which importlib mode does not put on the path
sys.path.insert(0, str(Path(__file__).parent))
