"""A small fit in a process of its own, so that a test can kill it: python killed.py DATA RUN CACHE."""

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from training import fit
from training.photos.data import load_photos
from training.settings import load_recipe

SETTINGS = {
    **load_recipe("cats_vs_dogs_mobilenetv2"),
    "backbone_weights": "random",
    "size": 32,
    "epochs": 3,
    "batch_size": 32,
    "warmup_steps": 2,
    "inverse_regularisation": [1.0],
}

if __name__ == "__main__":
    data, run, cache = sys.argv[1:]
    fit.CHECKPOINT_SECONDS = 0  # after every step
    photos = load_photos(data, SETTINGS["size"], cache=Path(cache), progress=False)
    model = fit.fit(SETTINGS, photos, Path(run), cache=Path(cache), progress=False)
    print(hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest())
