"""Which texts of a set a query is about: words counted (BM25), meanings compared (embeddings), both rankings fused.

Local, offline and deterministic: no ranking depends on the order in which the texts were given. Any room may use it.
"""

from __future__ import annotations

from gristmill.retrieve.bm25 import Bm25
from gristmill.retrieve.embeddings import LIBRARY, MODEL, embed, embed_with, packed, unpacked
from gristmill.retrieve.fusion import fuse
from gristmill.retrieve.index import Hit, Index
from gristmill.retrieve.terms import terms

__all__ = ["LIBRARY", "MODEL", "Bm25", "Hit", "Index", "embed", "embed_with", "fuse", "packed", "terms", "unpacked"]
