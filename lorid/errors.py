"""Everything that lorid raises on purpose.

LoridError                 base of all; its text is one line: the cause and the fix
├── ConfigError            the config has problems, all of them listed
├── DataError              a dataset or a row cannot be used
├── ArtifactError          the store cannot be read or written
│   ├── ArtifactIncomplete a record or one of its files is missing
│   ├── ArtifactDrifted    content differs from what its record says, or a name is taken
│   └── RunTaken           another driver holds the run's name
├── EngineError            text generation failed
│   ├── EngineDied         the engine's process is gone; another one can answer
│   ├── PromptTooLong      a prompt has more tokens than the engine takes
│   └── AdapterMismatch    an adapter is missing or does not fit the base
│       └── AdapterIdle    an adapter is loaded and answers like the base
├── CheckerError           answers cannot be compared on this machine
├── TeacherError           the teacher could not be used
│   ├── TeacherRefused     the server refuses key, model or account: asking again is useless
│   └── BudgetSpent        the cap on money is reached; what came is kept
├── TrainingError          one or more roles were not trained
│   └── NothingToLearn     the data, as the settings take it, leaves nothing to train on
├── ServeError             the endpoint could not be started, reached or used
│   └── EndpointBusy       it refuses for now, or was lost: asking again may help
└── ResourceError          the cluster or the machine lacks what a stage needs
"""

import errno


class LoridError(Exception):
    """Base of lorid's errors. `exit_code` is what a command returns for it."""

    exit_code = 1


class ConfigError(LoridError):
    """The config has problems; the message lists all of them."""

    exit_code = 2


class DataError(LoridError):
    """A dataset or a row cannot be used."""

    exit_code = 2


class ArtifactError(LoridError):
    """The artifact store cannot be read or written."""

    exit_code = 2


class ArtifactIncomplete(ArtifactError):
    """A record, or a file that it names, is missing."""


class ArtifactDrifted(ArtifactError):
    """Content differs from its record, or another artifact holds the name."""


class RunTaken(ArtifactError):
    """Another driver holds the run's name, or has taken it over."""


class EngineError(LoridError):
    """Text generation failed."""


class EngineDied(EngineError):
    """The engine is gone in the middle of a text; asking a new one is worth it."""


class PromptTooLong(EngineError):
    """A prompt has more tokens than the engine takes; the question is at fault."""

    exit_code = 2


class AdapterMismatch(EngineError):
    """An adapter is missing or does not fit the base model."""

    exit_code = 2


class AdapterIdle(AdapterMismatch):
    """An adapter answers like the base: it does nothing."""


class CheckerError(LoridError):
    """Answers cannot be compared: a worker of the checker does not start."""


class TeacherError(LoridError):
    """The teacher could not be used."""


class TeacherRefused(TeacherError):
    """The server refuses the key, the model or the account."""

    exit_code = 2


class BudgetSpent(TeacherError):
    """The cap on money is reached; a run with a higher one goes on where this one stopped."""

    exit_code = 3


class TrainingError(LoridError):
    """One or more roles were not trained."""


class NothingToLearn(TrainingError):
    """All problems are too long, none has a target, or there is nothing to validate on."""

    exit_code = 2


class ServeError(LoridError):
    """The endpoint could not be started, reached or used."""

    exit_code = 2


class EndpointBusy(ServeError):
    """The endpoint refuses for now, is not there, or was lost in the middle of an answer."""

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, is_absent: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_s, self.is_absent = retry_after_s, is_absent


class ResourceError(LoridError):
    """The cluster or the machine lacks what a stage needs."""

    exit_code = 2


_OS_FIXES = {
    errno.ENOSPC: "free some space, or choose another disk (TMPDIR for temporary files)",
    errno.EDQUOT: "your quota is used up: free some space, or choose another disk",
    errno.EFBIG: "a limit of this process or file system forbids so large a file (ulimit -f)",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "the disk is mounted read-only; choose another",
    errno.ENOTDIR: "a file is where a folder should be",
    errno.EMFILE: "raise the number of open files (ulimit -n)",
}


def one_line(text: object, *, max_chars: int = 200) -> str:
    """An error, or any text, without its line breaks and cut to so many characters."""
    return " ".join(str(text).split())[:max_chars]


def explained_os_error(error: OSError, *, doing: str) -> str:
    """One line with cause and fix: `cannot write x: No space left on device; free some space`."""
    cause = error.strerror or type(error).__name__
    fix = _OS_FIXES.get(error.errno or 0, "check the path and the disk")
    return f"cannot {doing}: {cause}; {fix}"
