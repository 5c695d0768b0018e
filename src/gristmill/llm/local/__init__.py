"""Weights on this machine, behind llama.cpp in a child process."""
