"""Recipes, their runs and records, the tables made from them, and searches."""
