"""The one training loop, its recipe, the losses and the task of image-to-image generators."""
