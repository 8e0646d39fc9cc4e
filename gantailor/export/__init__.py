"""From a narrow generator to files that a runtime reads, checked against PyTorch.

The package is a function too: ``gantailor.export(narrow, "out/", example_inputs=(x,))``, ``gantailor/api.py``.
"""

import sys

from gantailor.supernet.plugins import CallablePackage

called = "gantailor.api:export"
sys.modules[__name__].__class__ = CallablePackage
