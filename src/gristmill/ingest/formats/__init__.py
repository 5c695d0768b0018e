"""One small module a format. Each turns bytes into a `Content`: a title and clean pieces in reading order."""
