"""Charts as SVG, made of plain numbers and strings: they know nothing of Values, models or training.

    lines                   one or more series over epochs, such as losses
    confusion_matrix        how often each class was read as each class
    images                  small pictures beside each other: digits, or weights
    grid, decision_regions  what a model says all over a plane, behind the points it was taught with
    beside                  several charts in a row, as one

Each gives a Chart, which shows itself in a notebook and is saved to a file.
"""

from milligrad.charts.chart import Chart, beside
from milligrad.charts.confusion import confusion_matrix
from milligrad.charts.images import images
from milligrad.charts.lines import lines
from milligrad.charts.regions import decision_regions, grid

__all__ = ["Chart", "beside", "confusion_matrix", "decision_regions", "grid", "images", "lines"]
