"""Commands ``run`` and ``pack``: exported models applied to pictures and frames, and handed over."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from gantailor.handover.pack import pack as write_pack
from gantailor.inference.files import Application, check_out, input_files
from gantailor.inference.models import open_model
from gantailor.inference.page import ADDRESS, make_page
from gantailor.inference.tiles import Tiling
from gantailor.run.progress import Reporter

VISIBLE = 2 / 255  # of the way from black to white


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Apply a model to every input, into a folder; what lies there already stays."""
    files, out, report = input_files(arguments.inputs), Path(arguments.out), Reporter()
    check_out(out, files)
    how = {"device": arguments.device, "threads": arguments.threads, "trust_code": arguments.trust_code}
    model = open_model(arguments.export, **how)
    tiling = Tiling(model=model, tile=arguments.tile, overlap=arguments.overlap)
    report.note(f"{model.name}: {model.takes}, {len(files)} pictures")
    several = len(files) > 1
    job, started = Application(tiling, out, skip_corrupt=arguments.skip_corrupt), time.monotonic()
    job(
        files,
        on_picture=report.pictures("pictures", patient=False) if several else None,
        on_tile=None if several else report.pictures("tiles", "tiles", patient=False),
    )
    if job.skipped:
        report.note(f"{len(job.skipped)} cannot be read and are left out ({', '.join(job.skipped[:3])})")
    if job.seam > VISIBLE:
        whole = "--tile 0" if model.size is None else "--device torch --tile 0"
        report.note(
            f"neighbouring tiles differ by up to {job.seam:.0%} where they meet: raise --overlap, or give {whole}; a "
            "generator with norms over the picture sees the whole one alone as it was trained"
        )
    took = time.monotonic() - started
    already = f", {job.kept} lay there already" if job.kept else ""
    print(f"{job.made} pictures in {took:.1f} s{already}: {out}")
    return {"out": out, "made": job.made, "kept": job.kept, "skipped": job.skipped, "seconds": took}


def page(arguments: argparse.Namespace) -> dict[str, Any]:
    """Serve a page to try a model on, until it is interrupted."""
    model = open_model(arguments.export, device=arguments.device, trust_code=arguments.trust_code)
    served = make_page(Tiling(model=model))
    print(f"{model.name}: http://{ADDRESS}:{arguments.port} (Ctrl-C ends it)", flush=True)
    served.launch(server_name=ADDRESS, server_port=arguments.port, share=False, quiet=True)
    return {"model": model.name}


def pack(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write one file with all that was exported of a run."""
    file = write_pack(arguments.run, arguments.out, trust_code=arguments.trust_code)
    print(f"{file}: {file.stat().st_size:,} bytes; README.md in it says how each model is run")
    return {"file": file, "bytes": file.stat().st_size}
