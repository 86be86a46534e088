"""A small fit in a process of its own, so that it can be killed.

python killed.py DATA RUN CACHE                  MobileNetV2, killed by whoever started it
python killed.py DATA RUN CACHE SETTINGS STEPS   these settings (JSON), and it kills itself after so many steps
"""

import hashlib
import json
import os
import signal
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


def kill_after(steps: int) -> None:
    """Let the process end as by `kill -9` in the middle of this step."""
    average, done = fit._Training._average, []

    def dying(self) -> None:
        average(self)
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    fit._Training._average = dying


if __name__ == "__main__":
    data, run, cache, *given = sys.argv[1:]
    settings = json.loads(given[0]) if given else SETTINGS
    if given:
        kill_after(int(given[1]))
    fit.CHECKPOINT_SECONDS = 0  # after every step
    photos = load_photos(data, settings["size"], cache=Path(cache), progress=False)
    model = fit.fit(settings, photos, Path(run), cache=Path(cache), progress=False)
    print(hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest())
