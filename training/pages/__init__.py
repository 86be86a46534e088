"""What reports are made of: figures drawn alike, and pages that stand alone."""
