"""Make HutterPrize.hdf5: 100 million characters of Wikipedia.

The text of the Hutter Prize is downloaded, 36 MB, or taken from --source.
"""

import sys

from _common import script_for

main = script_for("HutterPrize", __doc__)

if __name__ == "__main__":
    sys.exit(main())
