"""Makes an environment from packed wheels, on top of what the machine has, without a network.

    python install.py FOLDER VENV

The environment sees the packages of the Python that makes it, also where that is an environment itself: a path file
names its folder, which `--system-site-packages` alone would pass over. pip then installs only what is missing or old.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path


def main() -> None:
    """Make it."""
    folder, place = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    if not (folder / "requirements.txt").is_file():
        sys.exit(f"install.py: {folder}: got no requirements.txt, wants a folder that gpu.sh --pack has made")
    if not (place / "bin" / "python").exists():
        venv.create(place, system_site_packages=True, symlinks=True)
    below = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (own,) = (place / "lib").glob("python3*/site-packages")
    (own / "below.pth").write_text("".join(f"{path}\n" for path in sorted(below)))
    command = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += [
        "--no-index",
        "--no-compile",
        "--find-links",
        str(folder),
        "--requirement",
        f"{folder}/requirements.txt",
    ]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
