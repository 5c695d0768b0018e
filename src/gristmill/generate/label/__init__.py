"""Classes from a description: rules, labels and what to label next."""
