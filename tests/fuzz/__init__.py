"""A fuzzer of the commands: ``python -m tests.fuzz --cases 1000 --seed 0``.

Each case changes one or two files, arguments or limits of the system of a command that would succeed, and runs it. The
command must succeed or be refused in one line, within 20 seconds, and leave the files of earlier runs as they were.

``commands.py`` lists the commands, ``base.py`` makes the folder in which they run, ``mutations.py`` changes it,
``process.py`` runs a command in a forked process, and ``case.py`` draws a case and judges how it ended.
"""
