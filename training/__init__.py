"""The workbench: data in, a trained and honestly measured bundle out."""
