"""Charts without a browser: the figures that pages give to Plotly, drawn by matplotlib as SVG, PNG or PDF."""

from service.reports.drawing.image import FORMS, PIXELS_PER_INCH, Form, height_of, image, paint, settings

__all__ = ["FORMS", "PIXELS_PER_INCH", "Form", "height_of", "image", "paint", "settings"]
