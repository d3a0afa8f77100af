"""How the documentation is built: Sphinx, the furo theme, pages in MyST Markdown, warnings are errors."""

from __future__ import annotations

import html
import importlib
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from docutils import nodes
from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Generic, _TokenType
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

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_static"]
templates_path: list[str] = []
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wireline.css"]
html_title = f"wireline {release}"
html_search_scorer = str(ROOT / "docs/scorer.js")

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# The names in signatures that are documented elsewhere. The files are here, so that a build needs no network; a name
# that they do not have is plain text. Their format is version 1 of Sphinx's inventories: a name, a role, and a page.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", "inventories/python.inv"),
    "trio": ("https://trio.readthedocs.io/en/stable/", "inventories/trio.inv"),
}
# Every name of this library has to be on a page.
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

# `sphinx-build -b linkcheck` needs no network: it checks the links between the pages, and no others.
linkcheck_ignore = [r"https?://"]

# The button of a block copies a program without its output, which `OutputLexer` marks.
copybutton_exclude = ".linenos, .gp, .go"

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


class OutputLexer(PythonLexer):
    """Python in which a comment ``#> text`` is output."""

    def get_tokens_unprocessed(
        self, text: str, stack: Iterable[str] = ("root",)
    ) -> Iterator[tuple[int, _TokenType, str]]:
        """Yield the tokens of the program."""
        for index, token, value in super().get_tokens_unprocessed(text, stack):
            is_output = token is Comment.Single and value.startswith("#>")
            yield index, Generic.Output if is_output else token, value


_COLON = "\ue000"


def hide_colon(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keep napoleon from taking the first line of a property, ``The key: a function``, for a type and a text."""
    if lines and what in {"property", "attribute"}:
        lines[0] = lines[0].replace(": ", f"{_COLON} ")


def show_colon(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Undo ``hide_colon``, after napoleon."""
    lines[:] = [line.replace(_COLON, ":") for line in lines]


# Characters. Six cells with the first number fit beside each other on a telephone, three with the second.
_TINY_CELL, _SHORT_CELL = 10, 22


def make_tables_narrow(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Prepare each table of more than two columns for a telephone, where the first cell of a row is its heading.

    The other cells have the headings of their columns. They are side by side if they are short (``narrow-grid``), else
    below each other (``narrow-list``). The style sheet does this, on narrow pages only.
    """
    if app.builder.format != "html":
        return
    for table in doctree.findall(nodes.tgroup):
        head, *body = (list(row.findall(nodes.entry)) for row in table.findall(nodes.row))
        if len(head) < 3:
            continue
        longest = max((len(cell.astext()) for row in body for cell in row[1:]), default=0)
        columns = len(head) - 1 if longest <= _TINY_CELL else min(len(head) - 1, 3)
        table.parent["classes"] += (
            ["narrow-grid", f"narrow-{columns}"] if longest <= _SHORT_CELL else ["narrow-list"]
        )
        for row in body:
            for cell, heading in zip(row[1:], head[1:], strict=True):
                label = html.escape(heading.astext())
                # An attribute is neither indexed for the search nor read aloud with the cell.
                cell.insert(
                    0, nodes.raw("", f'<span class="column" data-name="{label}"></span>', format="html")
                )


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_lexer("python", OutputLexer)
    for door in DOORS:
        importlib.import_module(door)
    importlib.import_module("wireline.testing._certificates")
    for door in DOORS:
        read_private_modules(door)
    app.connect("autodoc-process-docstring", hide_colon, priority=1)
    app.connect("autodoc-process-docstring", show_colon, priority=999)
    app.connect("missing-reference", link_to_the_door)
    app.connect("doctree-resolved", draw_in_place)
    app.connect("doctree-resolved", make_tables_narrow)
