"""Arguments that a docstring describes together ("height, width: of images") are one each in the API."""

import re

import griffe

# An entry of four spaces, its names with commas between, also over several lines; what is said of them.
TOGETHER = re.compile(
    r"^ {4}(?P<names>\w+(?:,\s+\*{0,2}\w+)+):(?P<text>.*\n?(?:^ {5,}.*\n?)*)", flags=re.MULTILINE
)


def apart(docstring: str) -> str:
    """The docstring with an entry for each name."""

    def entries(match):
        text = match["text"].rstrip("\n")
        return "".join(f"    {name}:{text}\n" for name in re.split(r",\s+", match["names"]))

    return TOGETHER.sub(entries, docstring)


class Apart(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = apart(obj.docstring.value)
