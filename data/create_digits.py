"""Make Digits.hdf5: 1797 handwritten digits of 8 x 8 pixels.

They come with scikit-learn, so nothing is downloaded.
"""

import sys

from _common import script_for

main = script_for("Digits", __doc__)

if __name__ == "__main__":
    sys.exit(main())
