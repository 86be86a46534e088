"""Measurements beside what people use today, each a command that prints its own table."""
