"""Commands of the ``aws`` CLI one after the other in one process, for tests that run dozens: each would otherwise spend
most of its time on imports and on reading the same service models.

Run by the interpreter of either major version (this file imports nothing of this project). Each line of standard input
is the JSON list of a command's words; the answer is a line with the exit code, standard output and standard error. Each
command has a driver and a session of its own and writes to files in place of the real descriptors 1 and 2.
"""

import json
import os
import sys
import tempfile

from awscli.clidriver import create_clidriver  # type: ignore[import-untyped]

models = None
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        driver = create_clidriver()
        if models is None:
            models = driver.session.get_component("data_loader")
        driver.session.register_component("data_loader", models)
        try:
            code = driver.main(json.loads(line))
        except SystemExit as exit_:  # of argparse, for words that it does not know
            code = exit_.code
        sys.stdout.flush()
        sys.stderr.flush()
        out.seek(0)
        err.seek(0)
        answer = [code, out.read().decode(), err.read().decode()]
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
