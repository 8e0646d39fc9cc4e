"""The generator of ESRGAN and Real-ESRGAN."""
