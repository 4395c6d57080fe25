"""Model repositories for Triton Inference Server."""

from gradscore.triton.checking import check_repository
from gradscore.triton.repository import write_repository

__all__ = ["check_repository", "write_repository"]
