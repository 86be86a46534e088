"""What a model is worth: scores, figures, the page on a run, and comparing runs."""
