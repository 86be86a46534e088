"""python -m training: fit a recipe, evaluate a bundle."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before anything imports TensorFlow

from training.cli import main

main()
