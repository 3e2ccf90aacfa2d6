"""What can go wrong, as one tree. Every message is one sentence for the person who typed the value.

LabError
├── SpecError      a value that a spec, a flag or a control refuses
├── DataError      a data file or a base folder that cannot be used
├── AssetError     a file that could not be fetched or is not what it should be
├── AdapterError   a file or folder that is no adapter, or one that cannot be read
├── MergeError     a model whose adapter cannot be merged into its base
├── StoreError     a run that is not in the store, or a store that cannot be written
├── TrainingError  a training worker that died
└── ClaimError     a claim of the support matrix that does not hold
"""


class LabError(Exception):
    """Root of every error that is the user's to mend; surfaces show its text and nothing else."""


class SpecError(LabError):
    """A parameter outside its allowed range."""


class DataError(LabError):
    """A data file or a base folder that cannot be used."""


class AssetError(LabError):
    """A file that could not be fetched, or whose content is not the pinned one."""


class AdapterError(LabError):
    """A file or folder that is no adapter, or an adapter that cannot be read."""


class MergeError(LabError):
    """A model whose adapter cannot be merged into its base, or is."""


class StoreError(LabError):
    """A run that the store does not have, or a store that cannot be written."""


class TrainingError(LabError):
    """A training worker that ended without finishing its run."""


class ClaimError(LabError):
    """A claim of the support matrix that does not hold of a cell."""


def out_of_range(parameter: str, owner: str, allowed: str, got: object) -> str:
    """The one sentence for a refused value.

    >>> out_of_range("r", "LoraSpec", "an int of at least 1", 0)
    'The r parameter of LoraSpec must be an int of at least 1. Got 0.'
    """
    return f"The {parameter} parameter of {owner} must be {allowed}. Got {got!r}."
