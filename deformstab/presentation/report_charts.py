"""The charts of a report: Vega-Lite, compiled here, and Vega's JavaScript to draw them.

Why Vega: it draws SVG, which prints and which screen readers read; it takes names as text, where
plotly.js reads markup in them; and of the libraries that pip installs it names the fewest other hosts,
three links to help (plotly.js and BokehJS: dozens, for maps, fonts and licences), which are blanked.
The page's own policy forbids the browser to load anything. 0.9 MB in place of 4.8.
"""

import functools
import re

from deformstab.extras import needing

# XML's namespaces are names: nothing is loaded from there.
_ADDRESS = re.compile(r"""https?://(?!www\.w3\.org/)[^\s"'`)<>\\]*""")
_FONT = "system-ui, sans-serif"
_CONFIG = {
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {"labelFontSize": 11, "labelLimit": 190, "gridColor": "#e4e4e4", "domain": False},
}


@functools.cache
def runtime() -> str:
    """Vega's JavaScript, as a script that sets `window.vegaEmbed`; without addresses of hosts."""
    script = _converter().javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return _ADDRESS.sub("about:blank", script)


@functools.cache
def charts() -> dict[str, dict]:
    """Vega's specifications of the charts, by name.

    Each takes its rows from data sets that the page fills: `points` and `layers`, or `cells`; and
    the height of a layer from the signal `y_step`.
    """
    return {
        "profile": _compiled(_profile("linear")),
        "profile_ratio": _compiled(_profile("log")),
        "heatmap": _compiled(_heatmap(ratio=False)),
        "heatmap_ratio": _even(_compiled(_heatmap(ratio=True))),
    }


def _even(spec) -> dict:
    """Colours reach as far above 1 as below, to what the page puts into the signal `reach`."""
    (colour,) = [scale for scale in spec["scales"] if scale["name"] == "color"]
    colour |= {"domain": {"signal": "[-reach, reach]"}, "clamp": True}
    spec["signals"].append({"name": "reach", "value": 1})
    return spec


def _compiled(spec) -> dict:
    found = _converter().vegalite_to_vega(spec)
    found.pop("$schema")  # an address, which nothing reads
    return found


def _converter():
    with needing("report", "reports"):
        import vl_convert
    return vl_convert


def _layers(**more) -> dict:
    """The axis of layers, the input above."""
    order = {"field": "order", "op": "min", "order": "ascending"}
    # Of a long name its end, which tells it from its neighbours.
    name = "length(datum.label) > 28 ? '…' + slice(datum.label, -27) : datum.label"
    axis = {"title": None, "labelOverlap": "greedy", "ticks": False, "labelExpr": name}
    return {"field": "layer", "type": "nominal", "sort": order, "axis": axis, **more}


def _profile(scale) -> dict:
    """A line over layers for each series, with intervals; a row behind each layer to click on."""
    axis = {"title": None, "tickCount": 6, "orient": "top", "format": "~g"}
    value = {"type": "quantitative", "axis": axis, "scale": {"type": scale, "nice": False}}
    if scale == "linear":
        value["scale"]["zero"] = True
    colour = {"field": "colour", "type": "nominal", "scale": None}
    offset = {"field": "number", "type": "ordinal"}
    bands = {"paddingInner": 0.2, "paddingOuter": 0.1}
    both = {"y": _layers(scale=bands), "color": colour, "yOffset": offset}
    middle = {
        "data": {"name": "middle"},
        "mark": {"type": "rule", "strokeDash": [4, 3], "color": "#555555"},
        "encoding": {"x": {"field": "at", **value}},
    }
    selected = {"condition": {"test": "datum.selected", "value": "#fde9b8"}, "value": "transparent"}
    return {
        "width": "container",
        "height": {"step": 20, "for": "position"},
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        "layer": [
            {
                "data": {"name": "layers"},
                "mark": {"type": "rect", "cursor": "pointer"},
                "encoding": {"y": _layers(scale=bands), "fill": selected},
            },
            *([middle] if scale == "log" else []),
            {
                "data": {"name": "points"},
                "layer": [
                    {
                        "mark": {"type": "line", "opacity": 0.55, "strokeWidth": 1.2},
                        "encoding": {
                            "x": {"field": "value", **value},
                            "order": {"field": "order", "type": "quantitative"},
                            "detail": {"field": "number"},
                        }
                        | both,
                    },
                    {
                        "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6},
                        "encoding": {"x": {"field": "low", **value}, "x2": {"field": "high"}}
                        | both,
                    },
                    {
                        "mark": {
                            "type": "point",
                            "filled": True,
                            "size": 70,
                            "opacity": 1,
                            "cursor": "pointer",
                            "tooltip": {"content": "data"},
                        },
                        "encoding": {
                            "x": {"field": "value", **value},
                            "shape": {"field": "shape", "type": "nominal", "scale": None},
                            "description": {"field": "says"},
                        }
                        | both,
                    },
                ],
            },
        ],
    }


def _heatmap(ratio) -> dict:
    """A cell for each layer and value of what varies; ratios as far from 1 above as below."""
    legend = {"orient": "top", "title": None, "gradientLength": 180, "gradientThickness": 12}
    colour = {"field": "shade", "type": "quantitative", "legend": legend}
    if ratio:
        legend["labelExpr"] = "format(exp(datum.value), '.2~g')"
        colour["scale"] = {"scheme": "purpleorange", "reverse": True}
    else:
        colour["scale"] = {"scheme": "cividis", "zero": True}
    axis = {"title": None, "orient": "top", "labelOverlap": "greedy", "labelAngle": -40}
    axis["labelLimit"] = 110
    columns = {
        "field": "column",
        "type": "nominal",
        "sort": {"field": "place", "op": "min", "order": "ascending"},
        "axis": axis,
    }
    return {
        "data": {"name": "cells"},
        "padding": {"left": 2, "right": 60, "top": 2, "bottom": 2},  # of the last column's name
        "width": "container",
        "height": {"step": 20},
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        "mark": {"type": "rect", "cursor": "pointer", "tooltip": {"content": "data"}},
        "encoding": {
            "x": columns,
            "y": _layers(),
            "color": colour,
            "description": {"field": "says"},
        },
    }
