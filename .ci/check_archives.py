"""Whether a wheel and a source archive hold every file: check_archives.py FILE ..."""

import pathlib
import subprocess
import sys
import tarfile
import zipfile


def tracked(*folders: str) -> set[str]:
    """What the repository has in these folders."""
    command = ["git", "ls-files", *folders]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def members(archive: pathlib.Path) -> set[str]:
    """Paths of the files, in a source archive without its top folder."""
    if archive.suffix == ".whl":
        return set(zipfile.ZipFile(archive).namelist())
    with tarfile.open(archive) as content:
        return {name.partition("/")[2] for name in content.getnames()}


BESIDE = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE"}

package, configs = tracked("refinenet_jax"), tracked("configs")
for archive in map(pathlib.Path, sys.argv[1:]):
    if archive.suffix == ".whl":
        expected = package | {f"refinenet_jax/{path}" for path in configs}
    else:
        expected = package | configs | tracked("docs") | BESIDE
    missing = expected - members(archive)
    if missing:
        sys.exit(f"{archive.name} lacks {', '.join(sorted(missing))}")
    print(f"{archive.name} holds all {len(expected)} files")
