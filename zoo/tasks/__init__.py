"""How generators are trained: beside a teacher, and from pictures alone; a file for each."""

from __future__ import annotations

TASKS: dict[str, str] = {
    "image_to_image": "gantailor.zoo.tasks.image_to_image:IMAGE_TO_IMAGE",
    "cyclegan": "gantailor.zoo.tasks.cyclegan:CYCLEGAN",
    "munit": "gantailor.zoo.tasks.munit:MUNIT",
    "stylegan2": "gantailor.zoo.tasks.stylegan2:STYLEGAN2",
}

# Of a generator whose record names no task, by what it takes.
BY_INPUT: dict[str, str] = {"pictures": "image_to_image", "labels": "image_to_image", "latents": "stylegan2"}
