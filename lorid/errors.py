"""Everything that lorid raises on purpose.

LoridError                 base of all; its text is one line: the cause and the fix
├── ConfigError            the config has problems, all of them listed
├── DataError              a dataset or a row cannot be used
├── ArtifactError          the store cannot be read or written
│   ├── ArtifactIncomplete a record or one of its files is missing
│   └── ArtifactDrifted    content differs from what its record says, or a name is taken
├── EngineError            text generation failed
│   ├── EngineTimeout      no answer in time
│   └── AdapterMismatch    an adapter is missing or does not fit the base
│       └── AdapterIdle    an adapter is loaded and answers like the base
├── TeacherError           the teacher could not be used
├── TrainingError          one or more roles were not trained
├── ServeError             the endpoint could not be started, reached or used
└── ResourceError          the cluster or the machine lacks what a stage needs
"""


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


class EngineError(LoridError):
    """Text generation failed."""


class EngineTimeout(EngineError):
    """The engine did not answer in time."""


class AdapterMismatch(EngineError):
    """An adapter is missing or does not fit the base model."""

    exit_code = 2


class AdapterIdle(AdapterMismatch):
    """An adapter answers like the base: it does nothing."""


class TeacherError(LoridError):
    """The teacher could not be used."""


class TrainingError(LoridError):
    """One or more roles were not trained."""


class ServeError(LoridError):
    """The endpoint could not be started, reached or used."""

    exit_code = 2


class ResourceError(LoridError):
    """The cluster or the machine lacks what a stage needs."""

    exit_code = 2
