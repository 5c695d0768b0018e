"""Questions that are answered at length, from one source or several, and how they are checked and mended."""
