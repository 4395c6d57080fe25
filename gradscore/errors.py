"""The exception tree.

Every message says what is impossible, where, and the call or flag that helps.
"""


class GradscoreError(Exception):
    """Base class of every error that gradscore raises on purpose.

    The command line prints it as one line.
    """


class ModelError(GradscoreError):
    """A classifier, scoring model or verdict file cannot be read or used."""


class UnsupportedOpError(ModelError):
    """A graph holds an operator that no rule covers."""


class BuilderError(GradscoreError):
    """The isolated environment that builds gradient graphs is missing, or a build in it failed."""


class RuntimeUnavailableError(GradscoreError):
    """onnxruntime is missing, is installed more than once, or lacks the requested provider."""


class InputError(GradscoreError):
    """An input (image, array, folder, table) cannot be read or does not fit the model."""


class MismatchError(GradscoreError):
    """Two files do not belong together: a table and a verdict, a model and a table."""


class OutputExistsError(GradscoreError):
    """The output path exists, and overwriting was not requested."""
