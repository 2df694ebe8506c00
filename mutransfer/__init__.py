"""The kernel of mutransfer: what a transfer study is, how it scales, and how it is judged.

Pure Python on pydantic and numpy: no torch, no I/O, nothing of ours above it. See docs/adr/0001-layers.md.
"""

__version__ = "0.1.0"
