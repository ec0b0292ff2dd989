"""The one exception that the command line tells in a line, without a traceback."""


class UserError(ValueError):
    """Something that the person who typed the command can mend; the message says how."""
