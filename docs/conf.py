"""The documentation site, as `make docs` builds it: any warning is an error.

Pages are Markdown; those of the reference are made from docstrings. The addresses of
the repository and of this site are those of the package's metadata.
"""

import importlib.metadata
import pkgutil

from sphinx.util import inspect, logging

import keras_bsnn

package = importlib.metadata.metadata("keras_bsnn")
addresses = dict(line.split(", ") for line in package.get_all("Project-URL"))

project = "keras_bsnn"
version = release = package["Version"]
author = copyright = "the authors of keras_bsnn"
html_baseurl = addresses["Documentation"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

# Markdown. `repo:path` is a file or a folder of the repository.
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_url_schemes = {
    "http": None,
    "https": None,
    "repo": f"{addresses['Source']}/blob/main/{{{{path}}}}",
}
nb_execution_mode = "off"

# Docstrings: Google's style, with code between single backquotes.
default_role = "literal"
autodoc_default_options = {"members": True, "exclude-members": "build, get_config"}
autodoc_inherit_docstrings = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_ignore_module_all = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Call arguments", "params_style"), "Input shape", "Warns"]
maximum_signature_line_length = 72

html_theme = "furo"
html_title = "keras_bsnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "source_repository": addresses["Source"],
    "source_branch": "main",
    "source_directory": "docs/",
}
pygments_dark_style = "github-dark"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def setup(app):
    app.connect("autodoc-process-signature", signature_of_class)
    app.connect("autodoc-process-docstring", drop_docstring_of_type)
    app.connect("env-check-consistency", warn_of_missing_names)


def signature_of_class(app, what, name, value, options, signature, returns):
    """That of the constructor, where Keras hides it behind a `__new__` of its own."""
    if what != "class":
        return None
    found = inspect.signature(value.__init__, bound_method=True)
    return inspect.stringify_signature(found, show_annotation=False), None


def drop_docstring_of_type(app, what, name, value, options, lines):
    """A constant has none of its own; its page shows its value."""
    if what == "data":
        lines.clear()


def warn_of_missing_names(app, env):
    """Every name in the `__all__` of a public module must have its place."""
    documented = env.domains.python_domain.objects
    below = pkgutil.walk_packages(keras_bsnn.__path__, "keras_bsnn.")
    for module in ("keras_bsnn", *(found.name for found in below)):
        if "._" in module:
            continue
        for name in getattr(importlib.import_module(module), "__all__", ()):
            if name != "__version__" and f"{module}.{name}" not in documented:
                logging.getLogger(__name__).warning(
                    "%s.%s is not in the reference", module, name
                )
