"""The exception tree. Every message says what is impossible, where, and the call or flag that helps."""


class GradscoreError(Exception):
    """Base of everything this package raises on purpose; the command line prints it as one line."""


class ModelError(GradscoreError):
    """A classifier, scoring model or verdict file cannot be read or used."""


class UnsupportedOpError(ModelError):
    """A graph holds an operator that no rule covers."""


class BuilderError(GradscoreError):
    """The isolated environment that builds gradient graphs is absent, or the build failed in it."""


class RuntimeUnavailableError(GradscoreError):
    """No onnxruntime, more than one, or a provider that this one does not have."""


class InputError(GradscoreError):
    """An input (image, array, folder, table) cannot be read or does not fit the model."""


class MismatchError(GradscoreError):
    """Two things that must belong together do not: table and verdict, model and table."""


class OutputExistsError(GradscoreError):
    """An output path is taken and overwriting was not asked for."""
