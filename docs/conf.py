"""How the documentation is built: Sphinx, the furo theme, pages in MyST Markdown, warnings are errors."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import NoUri
from sphinx.pycode import ModuleAnalyzer

ROOT = Path(__file__).resolve().parent.parent
# What is documented is this checkout, whatever else is installed.
sys.path.insert(0, str(ROOT / "src"))

project = "wireline"
author = "The wireline authors"
copyright = "the wireline authors"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_static"]
templates_path: list[str] = []
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wireline.css"]
html_title = f"wireline {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Links into the standard library would need its inventory from the network at every build, so they are plain text.
# Whatever is ours, though, has to be on a page.
nitpick_ignore_regex = [(r"py:.*", r"(?!wireline\b).*")]
# Private types in public signatures, which no program has to name: the methods that a context needs of a socket, the
# arguments of classes that the library makes, and a type variable.
nitpick_ignore = [
    ("py:class", "wireline._pool.T"),
    ("py:class", "wireline._server_common.HandshakeConfig"),
    ("py:class", "wireline._server_limits.ServerLimits"),
    ("py:class", "wireline.adapters._buffered.BufferedStream"),
    ("py:class", "wireline.asyncnet._port.Tasks"),
    ("py:class", "wireline.testing._checks._Runner"),
    ("py:class", "wireline.tls._wrapping.AsyncUpgradable"),
    ("py:class", "wireline.tls._wrapping.Upgradable"),
    ("py:class", "wireline.tls._wrapping.Wrappable"),
]

# What leads out of the documentation is for whoever has a network: `sphinx-build -b linkcheck` checks the rest.
linkcheck_ignore = [r"https?://"]

DOORS = ("wireline", "wireline.net", "wireline.asyncnet", "wireline.tls", "wireline.testing")
"""The modules that users import from, in the order in which a name is looked for."""


def link_to_the_door(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.Element | None:
    """Resolve a name by the module that defines it (``wireline.options.SockOpt``) to the one that offers it.

    What both flavours offer is looked for in the one that is being talked about first.
    """
    target: str = node.get("reftarget", "")
    module, _, name = target.rpartition(".")
    if not module.startswith("wireline."):
        return None

    def is_near(door: str) -> bool:
        return any(f"{place}.".startswith(f"{door}.") for place in (module, node.get("py:module") or ""))

    for door in sorted(DOORS, key=is_near, reverse=True):
        if module != door and name in importlib.import_module(door).__all__:
            domain = env.get_domain("py")
            try:
                return domain.resolve_xref(
                    env, node["refdoc"], app.builder, "obj", f"{door}.{name}", node, contnode
                )
            except NoUri:
                return None
    return None


def read_private_modules(door: str) -> None:
    """Let autodoc find the docstrings of fields and enum members in the private modules that define them.

    It parses the file of ``__module__``, which is the public module.
    """
    analyzer = ModuleAnalyzer.for_module(door)
    analyzer.analyze()
    # The door's own modules last: `Server` is in both flavours.
    ours = [name for name in sys.modules if name.partition(".")[0] == "wireline" and name not in DOORS]
    for name in sorted(ours, key=lambda name: name.startswith(f"{door}.")):
        private = ModuleAnalyzer.for_module(name)
        private.analyze()
        analyzer.attr_docs.update(private.attr_docs)
        analyzer.tagorder.update(private.tagorder)


def draw_in_place(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the text of a diagram into the page, where it takes the colours of the theme, light or dark."""
    if app.builder.format == "html":
        for image in list(doctree.findall(nodes.image)):
            if "/diagrams/" in image["uri"]:
                drawing = (Path(app.srcdir) / image["uri"]).read_text(encoding="utf-8")
                image.replace_self(nodes.raw("", drawing, format="html"))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    for door in DOORS:
        importlib.import_module(door)
    importlib.import_module("wireline.testing._certificates")
    for door in DOORS:
        read_private_modules(door)
    app.connect("missing-reference", link_to_the_door)
    app.connect("doctree-resolved", draw_in_place)
