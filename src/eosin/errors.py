"""What Eosin cannot work with, said in one sentence instead of a traceback."""


class InputError(Exception):
    """Bad input: the message names the file or option, what is wrong with it and what to do.

    The command line prints the message alone and exits with `exit_code`.
    """

    exit_code = 1


class UsageError(InputError):
    """An option, or a combination of options, that makes no sense."""

    exit_code = 2


class TooFewImages(InputError):
    """Labels that are too few for one piece of work; others may do with them."""


class Diverged(InputError):
    """A training whose loss, gradient or weights ceased to be numbers."""


class Interrupted(InputError):
    """Work that was stopped and can be resumed by the same command."""

    exit_code = 4
