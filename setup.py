"""Installation of brainstorm and of its optional parts."""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel

HERE = Path(__file__).resolve().parent
HOME = "https://github.com/IDSIA/brainstorm"
EXAMPLES = "brainstorm.examples"  # what `brainstorm examples` copies


def read_version() -> str:
    """The version from the package's text: importing it would need NumPy."""
    text = (HERE / "brainstorm" / "__about__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


def long_description() -> str:
    """The README, with links that lead somewhere from elsewhere, too."""

    def absolute(match: re.Match) -> str:
        before, path = match.groups()
        kind = "raw" if "image" in before else "blob"
        kind = "tree" if (HERE / path).is_dir() else kind
        return f"{before}{HOME}/{kind}/v{read_version()}/{path}"

    text = (HERE / "README.rst").read_text(encoding="utf-8")
    return re.sub(r"(image:: |`[^`<]*<)(?!\w+:)([^>\s]+)", absolute, text)


def pycuda_can_be_built() -> bool:
    """Whether what PyCUDA needs for its build is on this machine.

    PyCUDA has only a source release. Its build takes the toolkit around the first
    nvcc on PATH; headers and libraries may also lie where the compiler looks.
    """
    nvcc = shutil.which("nvcc")
    if nvcc is None or shutil.which("g++") is None:
        return False
    toolkit = Path(nvcc).parent.parent
    header_dirs = [
        toolkit / "include",
        sysconfig.get_path("include"),
        *_search_path("CPATH"),
        "/usr/local/include",
        "/usr/include",
    ]
    library_dirs = [
        *(toolkit / d for d in ("lib", "lib64", "lib/stubs", "lib64/stubs")),
        *_search_path("LIBRARY_PATH"),
        f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}",
        *("/usr/local/lib", "/usr/lib64", "/usr/lib"),
    ]
    return all(
        any(Path(folder, name).exists() for folder in folders)
        for names, folders in (
            (("cuda.h", "curand.h", "Python.h"), header_dirs),
            (("libcuda.so", "libcurand.so"), library_dirs),
        )
        for name in names
    )


def _search_path(variable: str) -> list[str]:
    return [d for d in os.environ.get(variable, "").split(os.pathsep) if d]


def optional_requirements() -> dict[str, list[str]]:
    """The requirements of each extra.

    `all` holds what extends the library, as far as it installs on this machine.
    """
    linux_on_x86 = 'platform_system == "Linux" and platform_machine == "x86_64"'
    extras = {
        "onednn": [f"onednn-cpu-gomp>=2023.2; {linux_on_x86}"],
        "pycuda": ["pycuda>=2024.1", "scikit-cuda>=0.5.3"],
        "mpi": ["mpi4py>=4.0"],
        "reservoir": ["scipy>=1.11"],
        "draw-net": ["pygraphviz>=2.0"],
        "live-viz": ["bokeh>=3.1"],
        "notebook": ["ipywidgets>=8"],
        "tensorboard": ["tensorboard>=2.16"],
        "mlflow": ["mlflow-skinny>=3", "sqlalchemy>=2,<3", "alembic>=1.10"],
        "safetensors": ["safetensors>=0.4"],
        "sklearn": ["scikit-learn>=1.6"],
        "onnx": ["onnx>=1.16", "onnxruntime>=1.18"],
        "examples": ["scikit-learn>=1.3", "matplotlib>=3.8", "pandas>=2"],
        "tests": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.90",
            "selenium>=4.20",
            "nbclient>=0.8",
            "ipykernel>=6.20",
            "setuptools",
        ],
        "docs": [
            "sphinx>=8.1",
            "pydata-sphinx-theme>=0.16",
            "sphinx-copybutton>=0.5",
            "sphinx-design>=0.6",
            "sphinx-gallery>=0.18",
            "matplotlib>=3.8",
            "scikit-learn>=1.6",
        ],
    }
    # The pages of the examples run them.
    extras["docs"] += [*extras["examples"], *extras["onnx"]]
    names = [
        "onednn",
        "mpi",
        "reservoir",
        "draw-net",
        "live-viz",
        "notebook",
        "tensorboard",
        "mlflow",
        "safetensors",
        "sklearn",
        "onnx",
    ]
    names += ["examples", "pycuda"] if pycuda_can_be_built() else ["examples"]
    extras["all"] = [requirement for name in names for requirement in extras[name]]
    return extras


def with_underscores(line: str) -> str:
    """A line of the metadata that names an extra, with the other spelling of it."""
    return re.sub(
        r"""(?<=^Provides-Extra: )[\w-]+|(?<= extra == ["'])[\w-]+""",
        lambda name: name.group().replace("-", "_"),
        line,
    )


class BothSpellings(bdist_wheel):
    """Writes draw_net too where the metadata say draw-net.

    To pip before version 23.3 these are two extras.
    """

    def egg2dist(self, egginfo_path, distinfo_path):
        """Write the metadata of a wheel."""
        super().egg2dist(egginfo_path, distinfo_path)
        path = Path(distinfo_path, "METADATA")
        headers, blank, text = path.read_text(encoding="utf-8").partition("\n\n")
        lines = []
        for line in headers.split("\n"):
            lines += dict.fromkeys([line, with_underscores(line)])
        path.write_text("\n".join(lines) + blank + text, encoding="utf-8")


if __name__ == "__main__":
    setup(
        name="brainstorm",
        version=read_version(),
        description="Fast, flexible and fun neural networks",
        long_description=long_description(),
        long_description_content_type="text/x-rst",
        author="The brainstorm developers",
        license_expression="MIT",
        license_files=["LICENSE"],
        url=HOME,
        project_urls={
            "Documentation": f"{HOME}/tree/v{read_version()}/docs",
            "Source": HOME,
            "Changelog": f"{HOME}/blob/v{read_version()}/CHANGELOG.rst",
            "Issues": f"{HOME}/issues",
        },
        keywords=["neural networks", "deep learning", "LSTM", "machine learning"],
        classifiers=[
            "Development Status :: 4 - Beta",
            "Intended Audience :: Developers",
            "Intended Audience :: Science/Research",
            "Programming Language :: Python :: 3",
            *(f"Programming Language :: Python :: 3.{n}" for n in range(10, 15)),
            "Topic :: Scientific/Engineering :: Artificial Intelligence",
            "Typing :: Typed",
        ],
        python_requires=">=3.10",
        packages=[*find_packages(include=["brainstorm", "brainstorm.*"]), EXAMPLES],
        package_dir={EXAMPLES: "examples"},
        package_data={
            "brainstorm": [
                "py.typed",
                "handlers/cuda/kernels/*",
                *(f"viewer/*.{kind}" for kind in ("html", "css", "js")),
            ],
            EXAMPLES: ["*.rst"],
        },
        install_requires=["numpy>=1.26", "h5py>=3.10", "tqdm>=4.60"],
        extras_require=optional_requirements(),
        cmdclass={"bdist_wheel": BothSpellings},
        entry_points={"console_scripts": ["brainstorm = brainstorm.__main__:main"]},
    )
