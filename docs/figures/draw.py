"""Draw the documentation's figures: `python docs/figures/draw.py`, or `make docs`.

The same versions of Matplotlib and Pillow draw the same bytes.
"""

import pathlib
import sys

import matplotlib

HERE = pathlib.Path(__file__).parent


def main(folder: pathlib.Path = HERE) -> None:
    """Write all figures into a folder."""
    sys.path.insert(0, str(HERE))  # scripts import each other by name
    import ablation
    import diagrams
    import shapes
    from matplotlib import pyplot as plt

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "svilm"  # else ids in the file are random
    for draw in (diagrams.data_flow, diagrams.model, diagrams.snapshot, ablation.ablation):
        figure = draw()
        figure.savefig(folder / f"{draw.__name__}.svg", metadata={"Date": None})
        plt.close(figure)
    shapes.cut_and_paste().save(folder / "cut_and_paste.png", optimize=True)
    first, *rest = shapes.grounding()
    first.save(folder / "grounding.gif", save_all=True, append_images=rest, duration=83, loop=0)


if __name__ == "__main__":
    main()
