"""Pictures with labels: reading, splitting, augmenting, and looking at them before training."""
