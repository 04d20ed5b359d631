"""Docstrings name other objects as :func:`nms`, which Markdown does not know: the role goes, the name stays."""

import re

import griffe


class Roles(griffe.Extension):
    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = re.sub(r":(?:func|class|meth|mod):`", "`", obj.docstring.value)
