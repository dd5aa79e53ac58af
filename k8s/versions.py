"""The versions of the stages' packages, for a controller that has none of them installed.

`python -m k8s.versions locks/cpu.txt` prints JSON for MONTESSORI_STAGE_VERSIONS; the image build does it. Of several
locks the first that pins a package counts: the GPU image takes its built-in model from the CPU lock's package.
It needs nothing but Python's own library, since the build runs it before anything is installed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")


def pinned(lines: Iterable[str]) -> dict[str, str]:
    """Name → version of what a requirements file pins; comments, hashes and markers are left out."""
    return {found[1]: found[2] for line in lines if (found := _PIN.match(line))}


def main(arguments: list[str]) -> int:
    """Prints the versions that the locks named by `arguments` pin; 64 without a lock, or for one that pins nothing."""
    if not arguments:
        print("usage: python -m k8s.versions LOCK…", file=sys.stderr)
        return 64
    versions: dict[str, str] = {}
    for name in arguments:
        try:
            found = pinned(Path(name).read_text().splitlines())
        except OSError as error:
            print(f"{name}: cannot be read: {error.strerror}", file=sys.stderr)
            return 64
        if not found:
            print(f"{name}: no line of it pins a package (name==version)", file=sys.stderr)
            return 64
        versions = found | versions
    print(json.dumps(versions, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
