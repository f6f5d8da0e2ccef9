"""devicesim: prove that IoT devices sharing one CA are provisioned in the right AWS account.

The layers, lowest first; a module imports only what stands before it (``tests/test_architecture.py`` holds the table)::

    errors       the exception tree
    outcome      what is recorded: Stage, Failure, Attempt, Verdict
    rules        the oracle: what IoT Core should do          (pure)
    pki          the shared CA, device identities             (pure but for key files)
    record       the run's SQLite file, histograms, verdicts
    diagnosis    why a device is not connected: evidence in, ranked causes out          (pure)
    net          TLS and MQTT on the device side, on trio
    cloud        the control plane as a client (boto3)
    fleet        the fleet file, pacing, devices, the runner, gathering evidence
    conformance  the truth table run against anything: cases, their setup, results
    report       folds over the record and over results; text, JSON, JUnit
    emulator     an IoT Core for several accounts; sees errors and pki only, and only cli and pytest see it
    pytest       the emulator as fixtures for other people's tests
    cli          the command line; the only place that prints, reads argv or sets exit codes

``fleet`` and ``emulator`` never see each other, and the emulator never sees ``rules`` or ``outcome``: a fake that
shares the oracle would grade itself.
"""

__version__ = "0.1.0"
