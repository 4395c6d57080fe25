"""The one error that kernels raise."""


class KernelError(ValueError):
    """Arrays handed to a kernel have the wrong shape or type, or a back end cannot run here."""
