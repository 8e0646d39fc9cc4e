"""Which widths may be chosen, what they may cost, and how the best are found.

The package is a function too, ``gantailor.search(supernet, score=..., budget="0.1x")``: ``standalone/search.py``.
"""

import sys

from gantailor.supernet.plugins import CallablePackage

called = "gantailor.search.standalone.search:search"
sys.modules[__name__].__class__ = CallablePackage
