"""More of the labelled data there is: other contexts, other aspects, typing errors."""
