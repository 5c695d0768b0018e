"""What people decide about samples, and how the mixture is balanced."""
