"""Recipes from the configs of Augmentoolkit 3 (github.com/e-p-armstrong/augmentoolkit, as of 9fc91e6)."""
