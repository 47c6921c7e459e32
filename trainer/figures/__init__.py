"""The paper's figures 2, 4 and 5 for any run and clips, as files of pictures.

It may import tasks and what is below it.
"""
