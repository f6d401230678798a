"""What libraries say that a user can do nothing about."""

import logging
import warnings

NOISE = (
    ".*exists and is not empty.*",  # the run's folder, which holds its record by then
    ".*treespec, LeafSpec.*",  # Lightning calls what torch has renamed
    ".*LightningCLI's args parameter.*",  # the arguments are those of the command line, completed
    ".*does not have many workers.*",  # two cores have no more
    ".*The number of training batches .* is smaller than the logging interval.*",
)


def quiet() -> None:
    """Leave out the messages in `NOISE`, and Lightning's advertisements."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip: For seamless" not in record.getMessage()
    )
