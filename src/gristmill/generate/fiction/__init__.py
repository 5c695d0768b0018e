"""Role-play from fiction: characters that stay the same, and the stories they are in."""
