"""The refusals a user can meet: each message is one sentence that names the thing and the remedy."""


class ImageError(ValueError):
    """A picture that cannot be, or must not be, decoded."""


class BundleError(ValueError):
    """A folder or repository that is not a usable model bundle."""


class DataError(ValueError):
    """A data set, recipe or setting that training cannot work with."""


class StorageError(OSError):
    """A folder or disk that cannot take what has to be written."""
