"""Packs what a bare machine without a network lacks: wheels, and a cut of fib25, into a folder that git ignores.

    python scripts/benchmark/gpu/pack.py FOLDER [--fib25 DATA] [--there FILE]

Wheels are for Linux on x86-64 and the Python of --python. They are taken in the order of WANTED, each with all that it
needs, as long as the folder stays below 60 MiB; what does not fit is named. --there names a file with the packages that
the machine has (`pip list --format freeze` there): those are not packed. Without it, torch, numpy and OpenCV are taken
to be there.
"""

from __future__ import annotations

import argparse
import ast
import email.parser
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 60 << 20
WANTED = (
    *("tensorboardX", "tqdm", "pyyaml", "tifffile", "h5py", "connected-components-3d", "edt", "fastremap"),
    *("bioimage-cpp", "scipy", "pytest", "pytest-xdist", "hypothesis", "cloud-volume"),
)
THERE = ("torch", "numpy", "opencv-python-headless")
OF_TESTS = ("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100")
PLATFORMS = ("manylinux2014", *(f"manylinux_2_{n}" for n in (17, 24, 27, 28)))
MIDDLE = slice(37, 213)
"""The rows and columns of fib25 that are packed; all sections are."""


@dataclass(frozen=True)
class Wheel:
    """A wheel: its file, the name of its package, and the names of those that it needs."""

    path: Path
    name: str
    needs: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, python: str) -> Wheel:
        """Read what a wheel says of itself."""
        from packaging.requirements import Requirement

        with zipfile.ZipFile(path) as wheel:
            inside = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            said = email.parser.BytesHeaderParser().parsebytes(wheel.read(inside))
        there = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux", "extra": "",
                 "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix",
                 "implementation_name": "cpython", "platform_python_implementation": "CPython"}  # fmt: skip
        needs = [Requirement(line) for line in said.get_all("Requires-Dist", [])]
        kept = [need.name for need in needs if need.marker is None or need.marker.evaluate(there)]
        return cls(path, plain(said["Name"]), tuple(map(plain, kept)))


def plain(name: str) -> str:
    """Write a package's name as indexes compare it."""
    return name.lower().replace("_", "-").replace(".", "-")


def bounds() -> dict[str, str]:
    """Return what setup.py requires, by the names of the packages."""
    from packaging.requirements import Requirement

    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call)]
    words = next(k.value for call in calls for k in call.keywords if k.arg == "install_requires")
    return {plain(Requirement(line).name): line for line in (*ast.literal_eval(words), *OF_TESTS)}


def download(wanted: list[str], folder: Path, python: str) -> None:
    """Download wheels of packages and of all that they need."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    command += [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"pack.py: pip download: {done.stderr.strip().splitlines()[-1]}")


def closure(name: str, wheels: dict[str, Wheel], there: set[str]) -> set[str]:
    """Return the packages that one needs, itself included, less those that are there."""
    found: set[str] = set()
    left = [name]
    while left:
        if (one := left.pop()) not in found | there and one in wheels:
            found.add(one)
            left += wheels[one].needs
    return found


def chosen(wheels: dict[str, Wheel], there: set[str], room: int) -> tuple[set[str], list[str], dict[str, int]]:
    """Return the packages that fit, those asked for among them, and the bytes of those asked for that do not."""
    packed, asked, left = set[str](), list[str](), dict[str, int]()
    for name in map(plain, WANTED):
        if name in there:
            continue
        more = closure(name, wheels, there) - packed
        size = sum(wheels[one].path.stat().st_size for one in more)
        if size > room:
            left[name] = size
            continue
        room -= size
        packed |= more
        asked.append(name)
    return packed, asked, left


def cut(data: Path, folder: Path) -> None:
    """Write the middle of fib25's sections, with the terms that it comes under."""
    import h5py

    made = folder / "fib25"
    made.mkdir()
    for name in ("img.h5", "seg.h5"):
        with h5py.File(data / "fib25" / name) as source, h5py.File(made / name, "w") as file:
            array = source["main"][:, MIDDLE, MIDDLE]
            file.create_dataset("main", data=array, chunks=True, compression="gzip", compression_opts=9)
            file["main"].attrs.update(source["main"].attrs)
    for terms in (data / "fib25").glob("LICENSE*"):
        shutil.copy(terms, made)


def weight(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Pack the folder, and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fib25", type=Path, default=Path("data"), help="folder that holds fib25 (default: data)")
    parser.add_argument("--there", type=Path, help="the packages that the machine has, one NAME==VERSION per line")
    parser.add_argument("--python", default="3.12", help="of the machine")
    args = parser.parse_args()
    if args.folder.exists() and any(args.folder.iterdir()):
        sys.exit(f"pack.py: {args.folder}: got a folder with files in it, wants an empty one")
    if not (args.fib25 / "fib25" / "img.h5").is_file():
        sys.exit(f"pack.py: --fib25: got {args.fib25}, wants a folder that holds fib25/img.h5 and fib25/seg.h5")
    said = args.there.read_text().splitlines() if args.there else THERE
    there = {plain(line.partition("==")[0].strip()) for line in said} | {"torch"}
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / ".gitignore").write_text("*\n")
    cut(args.fib25, args.folder)
    asked = bounds()
    with tempfile.TemporaryDirectory() as made:
        download([asked[name] for name in map(plain, WANTED) if name not in there], Path(made), args.python)
        wheels = {wheel.name: wheel for wheel in (Wheel.of(path, args.python) for path in Path(made).glob("*.whl"))}
        packed, names, left = chosen(wheels, there, LIMIT - weight(args.folder) - (64 << 10))
        for name in packed:
            shutil.copy(wheels[name].path, args.folder)
    (args.folder / "requirements.txt").write_text("".join(f"{asked[name]}\n" for name in names))
    print(f"{args.folder}: {len(packed)} wheels and fib25, {weight(args.folder) / 2**20:.1f} MiB")
    for name, size in left.items():
        print(f"left out: {name}, {size / 2**20:.1f} MiB with what it needs; --there may make room")


if __name__ == "__main__":
    main()
