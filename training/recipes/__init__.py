"""One short file a recipe: plain assignments, and a docstring that says what to expect and what it costs."""
