# SPDX-License-Identifier: Apache-2.0
"""`python -m ultramotion …`: the command of this environment."""

from .command import main

if __name__ == "__main__":
    main()
