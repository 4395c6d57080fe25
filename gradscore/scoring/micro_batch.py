"""The size of a micro-batch: small enough for the caches and for memory."""

from gradscore.model.metadata import ModelMetadata
from gradscore.runtime.session import CPU_PROVIDER
from gradscore.scoring.backends import ScoringBackend

_LARGEST = 128


def micro_batch(metadata: ModelMetadata, backend: ScoringBackend, provider: str) -> int:
    """Return how many samples to run at once; a power of two on a device, because row counts double there."""
    if metadata.one_at_a_time:
        return 1
    most = max(1, min(_LARGEST, backend.fitting(metadata, provider)))
    return most if provider == CPU_PROVIDER else 1 << (most.bit_length() - 1)
