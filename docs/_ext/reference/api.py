"""Reference of the public Python API: the names in `svilm.__all__`."""

import inspect

_DIRECTIVE = "```{{eval-rst}}\n.. auto{kind}:: svilm.{name}\n{options}\n```\n"


def page() -> str:
    """Return a directive of autodoc for each public name."""
    import svilm

    parts = []
    for name in sorted(svilm.__all__, key=str.lower):
        value = getattr(svilm, name)
        module = inspect.getmodule(value)
        parts.append(f"## {name}\n")
        if module is not None and module.__name__.endswith("_pb2"):
            page = module.__name__.rpartition(".")[2].removesuffix("_pb2")
            parts.append(f"The protobuf message of that name: [its fields]({page}.md).\n")
            continue
        kind, options = "function", ""
        if inspect.isclass(value):
            kind, options = "class", "   :members:"
            if issubclass(value, Exception):
                kind, options = "exception", "   :show-inheritance:"
        parts.append(_DIRECTIVE.format(kind=kind, name=name, options=options))
    return "\n".join(parts)
