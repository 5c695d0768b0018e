"""Tasks, how they are attempted and judged. The same Task serves exam, benchmark and training by reward."""
