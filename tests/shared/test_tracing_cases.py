"""Small modules that a public survey of generators stumbled over: each prints what is right."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "cases" / "tracing"
OUTPUT = r"'b': \"is the generator's output\"\}"
HOLDS = r"widths hold: sliced = extracted to \d"
SAID = {  # what stands in lines that are printed, in this order
    "activation_as_kernel": ["1 free widths", "  a +64  a ", "10354688 said at full width; 10354688 real"],
    "adain_view_2_c": ["1 free widths", "  a +32  a, style$"],
    "addmm_linear": [rf"Linear \[\('a', 32\)\] \{{{OUTPUT}", rf"Addmm \[\('a', 32\)\] \{{{OUTPUT}"],
    "attention_c_over_heads": [r"\('embed', 8\), \('fc1', 64\)", "2 free widths", r"MACs left at half widths: 0\.28"],
    "attribute_behind_a_tuple": [rf"one  \{{{OUTPUT}", rf"pair \{{{OUTPUT}"],
    "branch_on_channels": [
        f"2 {HOLDS}",
        *(rf"{b} of 128: off .* by \d\.\d+e-07; MACs said (\d+), real \1$" for b in (63, 64, 65)),
    ],
    "channels_in_the_batch": ["1441792 said; 1441792 real", "360448 said; 360448 real"],
    "float32_only": [f"1 {HOLDS}.*computed in float32, tolerance 0.001"] * 2,
    "folded_norm_changes_the_net": [f"1 {HOLDS}", r"against the caller's model: (0\.0|\d\.\d+e-0[789]) of"],
    "half_of_the_channels": ["3 free widths", "  0 +16 ", "  0#2 +16 ", "  2 +32 "],
    "matmul_with_weight": [rf"8576 MACs; right is 8576 \| 1 {HOLDS}.*inexact: \{{\}}"] * 2,
    "no_width_left": [r"no width is left that can shrink.*no_width_left\.py:11", "no width is left that can shrink"],
    "proof_misses_a_width": [r"passes with 0 of 20 seeds, though half widths fail"],
    "recurrent": [rf"free \[\('i', \d+\), \('m.*', \d+\)\] \| 2 {HOLDS}"] * 12,
    "scripted_function": ["1 free widths", "  a +32  a$", f"1 {HOLDS}"],
    "size_in_the_outer_module": ["1 free widths", "  a +32  a, ca$"],
    "tensor_made_in_the_forward": [rf"free \[\('a', 32\)\] frozen \{{{OUTPUT}"] * 6,
    "type_as_tensor": [rf"{how} \[\('a', 32\)\] 1 {HOLDS}" for how in ("float", "to", "type_as")],
    "vector_quantiser": ["3 free widths", "  1 +16  1, 2.codes ", f"3 {HOLDS}"] * 2,
}
pytestmark = [pytest.mark.long, pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not here")]


def test_every_case_is_looked_at() -> None:
    assert {file.stem for file in FOLDER.glob("*.py")} == SAID.keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAID)
def test_case(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr().out
    lines = iter(said.splitlines())
    for wanted in SAID[name]:
        assert any(re.search(wanted, line) for line in lines), f"no {wanted!r} (any more) in\n{said}"
