"""Make CIFAR-10.hdf5: 60000 color images of 32 x 32 pixels in 10 classes.

The data set is downloaded, 170 MB, or taken from --source.
"""

import sys

from _common import script_for

main = script_for("CIFAR-10", __doc__)

if __name__ == "__main__":
    sys.exit(main())
