"""What must not be in training data: personal data, secrets, unsafe content."""
