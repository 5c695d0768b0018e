"""Requests handed in together, at half the price; durable until their answers are."""
