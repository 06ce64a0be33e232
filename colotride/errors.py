"""The one family of errors that a user can cause and repair.

Every message is one line that names the thing, its value and the remedy. Command lines print it and exit with 2;
anything that is not a `ColoTrideError` is a defect of ColoTride and keeps its traceback.
"""


class ColoTrideError(Exception):
    """Base of all errors that bad input can raise; `str(error)` is the line that the user reads."""


class ConfigurationError(ColoTrideError):
    """A configuration holds an unknown key, a value out of range, or values that contradict each other."""


class DataError(ColoTrideError):
    """A data set is missing, incomplete or unusable (a class with one image, a batch with one class)."""


class ModelError(ColoTrideError):
    """A model cannot be built or loaded, or its embeddings are unusable (NaN, wrong shape)."""


class CheckpointError(ColoTrideError):
    """A run directory holds no usable checkpoint, or one that another configuration made."""


class SearchError(ColoTrideError):
    """A search space, an objective or a request for resources that cannot be met."""


class WorkerError(ColoTrideError):
    """Workers that train together failed more often than was allowed."""


class StorageError(ColoTrideError, OSError):
    """A file cannot be written or read: the disk is full or read-only, or something else has the file's name."""
