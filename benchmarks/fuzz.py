"""Hypothesis against what is read, for as long as one likes: ``python benchmarks/fuzz.py --minutes 60 --seed 0``.

The properties are those of ``tests/hostile/test_fuzz.py``, in turn, each time from another seed; what fails is printed
with the smallest example and the seed, and ends this with status 1. Run it from a checkout, which has the tests.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings

TESTS = Path(__file__).parents[1] / "tests" / "hostile" / "test_fuzz.py"


def main() -> int:
    """Until the time is up, or something fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=300, help="of one target, before the next has its turn")
    given_ = parser.parse_args()
    spec = importlib.util.spec_from_file_location("fuzz_targets", TESTS)
    assert spec is not None and spec.loader is not None
    targets = importlib.util.module_from_spec(spec)
    scratch = tempfile.mkdtemp(prefix="gantailor-fuzz-")
    os.environ["XDG_CONFIG_HOME"], tempfile.tempdir = scratch, scratch
    os.chdir(scratch)
    spec.loader.exec_module(targets)
    tried: Counter[str] = Counter()
    end, number = time.monotonic() + 60 * given_.minutes, given_.seed
    try:
        while time.monotonic() < end:
            for target, examples in targets.TARGETS.items():
                if time.monotonic() > end:
                    break
                _round(target, examples, number, given_.examples, tried)
            number += 1
            for left in Path(scratch).glob("tmp*/[fcx]*"):
                shutil.rmtree(left.parent, ignore_errors=True)
    except BaseException:
        print(f"seed {number}, after {dict(tried)}", file=sys.stderr)
        raise
    finally:
        os.chdir("/")
        shutil.rmtree(scratch, ignore_errors=True)
    print(
        f"{sum(tried.values())} examples in {given_.minutes:g} minutes, seeds {given_.seed} to {number - 1}: all held"
    )
    print("\n".join(f"  {name}: {count}" for name, count in tried.items()))
    return 0


def _round(target, examples, number: int, count: int, tried: Counter[str]) -> None:  # type: ignore[no-untyped-def]
    @seed(number)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(examples)
    def holds(example: object) -> None:
        tried[target.__name__] += 1
        target(example)

    holds()


if __name__ == "__main__":
    sys.exit(main())
