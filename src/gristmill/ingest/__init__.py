"""Files → Documents → Chunks. Never calls a language model (OCR is not one)."""
