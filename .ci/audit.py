"""Judge what pip-audit found: exits 1 for a known vulnerability.

What could not be audited, since the index does not answer, is said in one line and is no failure.

    python audit.py audit.json audit.log
"""

import json
import sys
from pathlib import Path


def main() -> int:
    report, log = map(Path, sys.argv[1:])
    try:
        packages = json.loads(report.read_text())["dependencies"]
        known = [package for package in packages if "vulns" in package]
        reason = f"its index does not know {len(packages) - len(known)} of {len(packages)} packages"
    except (ValueError, KeyError):
        known, packages = [], []
        reason = (log.read_text().strip().splitlines() or ["it said nothing"])[-1]
    if not known:
        print(f"pip-audit: nothing was audited: {reason}")
        return 0
    if len(known) < len(packages):
        print(f"pip-audit: {reason}")
    vulnerable = [package for package in known if package["vulns"]]
    for package in vulnerable:
        for found in package["vulns"]:
            mended = ", ".join(found["fix_versions"]) or "none"
            print(f"{package['name']} {package['version']}: {found['id']}, mended in: {mended}")
    print(f"pip-audit: {len(vulnerable)} of {len(known)} audited packages have known faults")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
