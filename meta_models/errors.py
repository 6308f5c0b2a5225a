"""The one error of this package that a user can cause."""


class ModelError(ValueError):
    """A backbone, adapter or head that cannot be had as asked; the message says the remedy."""
