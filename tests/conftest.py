"""No test writes to the cache of whoever runs it: those that want one name a folder of their own."""

import os

os.environ["MILLIGRAD_CACHE"] = "off"  # for the processes that tests start, too
