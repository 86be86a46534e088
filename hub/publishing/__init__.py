"""What is published of a bundle: staging, comparing, the card, and the Space."""
