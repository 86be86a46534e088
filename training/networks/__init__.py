"""Networks: backbones of keras.applications, small networks from scratch, and what moves their weights."""
