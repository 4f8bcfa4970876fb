"""A run that one can watch: ``pirl-watch outputs/train``, a local page made of the run's files alone.

    tail.py      rows of metrics.jsonl as they are written
    history.py   their columns, and few enough points of them to draw
    success.py   success rates with intervals, and by task
    folder.py    what else lies in the run's folder: configuration, checkpoints, reports, videos
    preset.py    what differs from the closest preset
    standing.py  how the run stands, in words
    run.py       all of it together: what the page is told
    server.py    to a browser on this machine
    export.py    or into one file (html_file.py)
    page/        what the browser shows

It imports neither JAX nor torch nor LeRobot, and changes nothing.
"""
