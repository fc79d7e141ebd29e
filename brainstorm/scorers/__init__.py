"""Scorers: how well a network does, in numbers that a person cares about.

Unlike losses, scores are not part of the network and are not trained for. A scorer
compares an output of the network with the targets of a batch. What the batches give,
such as sums, counts or rows, makes the score of a data set, which so does not depend
on how the data are divided into batches.
"""

from brainstorm.scorers.base import *  # noqa: F403
from brainstorm.scorers.counting import *  # noqa: F403
from brainstorm.scorers.gathering import *  # noqa: F403
from brainstorm.scorers.over_rows import *  # noqa: F403
from brainstorm.scorers.whole import *  # noqa: F403
from brainstorm.utils import offer

offer(vars())
