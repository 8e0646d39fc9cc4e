"""The built-in metrics by name; known without importing what computes them."""

METRICS: dict[str, str] = {
    "fid": "gantailor.evaluators.metrics.distribution:FID",
    "kid": "gantailor.evaluators.metrics.distribution:KID",
    "precision": "gantailor.evaluators.metrics.distribution:PRECISION",
    "recall": "gantailor.evaluators.metrics.distribution:RECALL",
    "density": "gantailor.evaluators.metrics.distribution:DENSITY",
    "coverage": "gantailor.evaluators.metrics.distribution:COVERAGE",
    "features": "gantailor.evaluators.metrics.distribution:FEATURES",
    "l1": "gantailor.evaluators.metrics.fidelity:L1",
    "psnr": "gantailor.evaluators.metrics.fidelity:PSNR",
    "ssim": "gantailor.evaluators.metrics.fidelity:SSIM",
    "psnr_rgb": "gantailor.evaluators.metrics.fidelity:PSNR_RGB",
    "ssim_rgb": "gantailor.evaluators.metrics.fidelity:SSIM_RGB",
    "psnr_y": "gantailor.evaluators.metrics.fidelity:PSNR_Y",
    "ssim_y": "gantailor.evaluators.metrics.fidelity:SSIM_Y",
    "lpips": "gantailor.evaluators.metrics.perceptual:LPIPS",
    "diversity": "gantailor.evaluators.metrics.perceptual:DIVERSITY",
    "ppl_w": "gantailor.evaluators.metrics.path_length:PPL_W",
    "ppl_z": "gantailor.evaluators.metrics.path_length:PPL_Z",
    "miou": "gantailor.evaluators.metrics.segmentation:MIOU",
    "pixel_accuracy": "gantailor.evaluators.metrics.segmentation:PIXEL_ACCURACY",
    "macs": "gantailor.evaluators.metrics.cost:MACS",
    "parameters": "gantailor.evaluators.metrics.cost:PARAMETERS",
    "bytes": "gantailor.evaluators.metrics.cost:BYTES",
    "latency_ms": "gantailor.evaluators.metrics.cost:LATENCY_MS",
    "latency_p95_ms": "gantailor.evaluators.metrics.cost:LATENCY_P95_MS",
}

TEACHER_MARK = "[teacher]"  # behind a metric's name: compare with the teacher's pictures in place of the real ones
