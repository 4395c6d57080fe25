"""Model repositories for Triton Inference Server."""

from gradscore.triton.repository import check_repository, write_repository

__all__ = ["check_repository", "write_repository"]
