"""Tasks, how they are attempted and how attempts are judged. The same Task serves exam, benchmark and training by reward."""
