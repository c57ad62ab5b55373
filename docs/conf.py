"""Sphinx's settings for the course's site; tools/website.py copies docs/ and the notebooks together
and builds."""

import functools

import reference  # beside tools/website.py, which runs Sphinx
from sphinx import addnodes
from sphinx.builders import html
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer

project = "kdlab"
html_title = "kdlab: a course on knowledge distillation"
author = "the kdlab authors"
copyright = "the kdlab authors; prose and figures CC BY 4.0, code MIT"
language = "en"
smartquotes = False  # shapes are written (..., V), in code and in text

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinxcontrib.bibtex"]

nb_execution_mode = "off"  # the lessons as they were executed and committed
nb_ipywidgets_js = {}  # a page has no kernel, and would fetch the controls from the network
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# from a package, not from the network: tools/assets.py
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {
    "options": {"enableMenu": False}
}  # the menu's own extras would come from the network

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # torch's own texts are not ours to repeat
add_module_names = False

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["kdlab.css"]
html_show_sourcelink = False
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_favicon = "_static/kdlab.svg"
html_theme_options = {
    "show_toc_level": 2,
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],  # the sidebar has it all
    "use_fullscreen_button": False,
    "use_download_button": True,
    "search_bar_text": "Search the course",
    "logo": {"text": "kdlab"},
    "footer_start": [],
}
pygments_style = "default"


def analysed(name, analyse=ModuleAnalyzer.for_module):
    """The comments in a module's source, of which our own pages show those of kdlab alone: reading
    torch's and transformers' took longer."""
    if name.partition(".")[0] != "kdlab":
        raise PycodeError(f"{name} is not read")
    return analyse(name)


@functools.cache
def bare(env):
    """{page: its title with the lists of pages below it}: what the sidebar shows of each."""
    found = {name: toc.deepcopy() for name, toc in env.tocs.items()}
    for toc in found.values():
        for entry in toc.children:
            if len(entry) > 1:
                entry[1][:] = list(entry.findall(addnodes.toctree))
                entry[1:] = entry[1:] if len(entry[1]) else []
    return found


def sidebar(env, *page, whole=html.global_toctree_for_doc, **options):
    """The tree of all pages beside each of them. Sphinx copies every heading of every page for it
    and drops them again, which took a sixth of the time."""
    if not options.get("titles_only"):
        return whole(env, *page, **options)
    tocs, env.tocs = env.tocs, bare(env)
    try:
        return whole(env, *page, **options)
    finally:
        env.tocs = tocs


def setup(app):
    ModuleAnalyzer.for_module = analysed
    html.global_toctree_for_doc = sidebar
    app.connect("autodoc-process-docstring", reference.process)
    app.connect("autodoc-process-signature", reference.shorten)
