"""The paper's figures 2, 4 and 5 for any run and clips, as image files.

It may import tasks and the rooms below it.
"""
