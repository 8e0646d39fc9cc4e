"""The compact generator of Real-ESRGAN."""
