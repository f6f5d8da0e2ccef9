"""The layers hold: no import runs back up, none in a circle, every module has its row, pure modules stay pure."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "devicesim"

LAYERS: dict[str, frozenset[str]] = {
    # layer: the layers it may import, beside itself
    "errors": frozenset(),
    "outcome": frozenset({"errors"}),
    "rules": frozenset({"errors", "outcome"}),
    "pki": frozenset({"errors", "outcome"}),
    "record": frozenset({"errors", "outcome", "rules"}),
    "diagnosis": frozenset({"errors", "outcome", "rules", "record"}),
    "net": frozenset({"errors", "outcome", "pki"}),
    "cloud": frozenset({"errors", "outcome", "pki", "net", "diagnosis"}),
    "fleet": frozenset({"errors", "outcome", "rules", "pki", "record", "diagnosis", "net", "cloud"}),
    "conformance": frozenset({"errors", "outcome", "rules", "pki", "record", "net", "cloud", "fleet"}),
    "report": frozenset({"errors", "outcome", "rules", "record", "diagnosis", "conformance"}),
    # a fake that shares the oracle grades itself
    "emulator": frozenset({"errors", "pki"}),
    "cli": frozenset(
        {
            *("errors", "outcome", "rules", "pki", "record", "diagnosis", "net", "cloud", "fleet", "conformance"),
            *("report", "emulator", "__init__"),
        }
    ),
    # a plugin of pytest for whoever tests against the emulator
    "pytest": frozenset({"errors", "emulator"}),
    "__init__": frozenset(),
    "__main__": frozenset({"cli"}),
}

PURE = {
    # module (or package, with its modules): it takes times, randomness and bytes as arguments
    "errors",
    "outcome",
    "rules",
    "diagnosis",
    "conformance.cases",
    "conformance.matrix",
    "conformance.result",
    "cloud.connectpolicy",
    "cloud.jitptemplate",
    "cloud.leaf",
    "fleet.contradictions",
    "fleet.exchange",
    "fleet.arrival",
    "fleet.autorate",
    "fleet.draws",
    "fleet.fields",
    "fleet.telemetry",
    "fleet.capacity",
    "fleet.demand",
    "fleet.quotas",
    "fleet.sources",
    "fleet.pacing",
    "fleet.selection",
    "fleet.wireform",
    "pki.der",
    "pki.leaf",
    "record.histogram",
    "record.verdict",
    "report.text",
    "emulator.state",
    "emulator.topicrules",
    "emulator.registry",
    "emulator.policy",
    "emulator.admission",
    "emulator.provisioning",
    "emulator.history",
    "emulator.packets",
    "emulator.sendable",
    "emulator.session",
    "emulator.lifecycle",
    "emulator.limits",
    "emulator.routes",
    "emulator.shared",
    "emulator.broker",
    "emulator.restjson",
    "emulator.operations",
    "emulator.api",
    "emulator.apierrors",
    "emulator.quotas",
    "emulator.faults",
    "emulator.filterpattern",
    "emulator.guard",
    "emulator.traffic",
    "emulator.liveconnections",
    "emulator.deviceconnection",
    "emulator.frontdoor",
    "emulator.httprefusal",
    "emulator.delays",
    "emulator.cbor",
    "emulator.claims",
    "emulator.clock",
    "emulator.core",
    "emulator.retained",
    "emulator.adminroutes",
    "emulator.explain",
    "emulator.checks",
    "emulator.codec",
    "emulator.justintime",
    "emulator.recorder",
    "emulator.awsjson",
    "emulator.awsquery",
    "emulator.brokerlog",
    "emulator.connection",
    "emulator.constraints",
    "emulator.credentials",
    "emulator.dataplane",
    "emulator.decode",
    "emulator.encode",
    "emulator.enrichment",
    "emulator.events",
    "emulator.httpmessage",
    "emulator.javapattern",
    "emulator.policyconditions",
    "emulator.policypattern",
    "emulator.registryevents",
    "emulator.settings",
    "emulator.sigv4",
    "emulator.shadows",
    "emulator.shadowservice",
    "emulator.templatefunctions",
    "emulator.templates",
    "emulator.trail",
    "emulator.timers",
    "emulator.topics",
    "emulator.variables",
    "emulator.wire",
    "fleet.thresholds",
    "fleet.world",
    "net.clienthello",
    "net.engine",
    "net.keepalive",
    "net.names",
    "net.settings",
    "net.splitter",
    "net.steps",
    "record.facts",
    "record.metrics",
    "record.rows",
    "record.schema",
    "record.thresholds",
    "report.causes",
    "report.conformance_document",
    "report.conformance_text",
    "report.diagnosis_document",
    "report.diagnosis_text",
    "report.document",
    "report.generator",
    "report.groups",
    "report.junit",
    "report.layout",
    "report.plan_document",
    "report.plan_text",
    "report.load_text",
    "report.summary",
}

IMPURE_NAMES = {"socket", "trio", "logging", "random", "secrets", "subprocess", "os", "boto3", "hypercorn"}
IMPURE_CALLS = {"time.time", "time.monotonic", "time.perf_counter", "datetime.now", "datetime.utcnow", "uuid.uuid4"}

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in PACKAGE.rglob("*.py")
)


def layer_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def tree_of(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def imports_of(module: str) -> Iterator[str]:
    """Every devicesim module that is imported, also inside functions."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module is not None
            for name in node.names:
                full = f"{node.module}.{name.name}"
                yield full if full in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def own_imports(module: str) -> list[str]:
    return [each for each in imports_of(module) if each == "devicesim" or each.startswith("devicesim.")]


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_stands_before_it(module: str) -> None:
    layer = layer_of(module)
    assert layer in LAYERS, f"{module} has no row in the layer table"
    allowed = LAYERS[layer] | {layer}

    wrong = [each for each in own_imports(module) if layer_of(each) not in allowed]

    assert wrong == []


def test_no_module_imports_itself_round_a_circle() -> None:
    graph = {module: {each for each in own_imports(module) if each in MODULES} for module in MODULES}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for each in graph[module]:
                walk(each, (*path, module))
            done.add(module)

    for module in MODULES:
        walk(module, ())


def is_pure(module: str) -> bool:
    name = module.removeprefix("devicesim.")
    return any(name == each or name.startswith(each + ".") for each in PURE)


@pytest.mark.parametrize("name", sorted(PURE))
def test_every_row_of_the_pure_table_is_a_module(name: str) -> None:
    assert f"devicesim.{name}" in MODULES


@pytest.mark.parametrize("module", [each for each in MODULES if is_pure(each)])
def test_pure_module_has_no_clock_socket_logger_or_randomness(module: str) -> None:
    tree = tree_of(module)
    imported = {each.split(".")[0] for each in imports_of(module)}
    called = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}

    assert not imported & IMPURE_NAMES
    assert not called & IMPURE_CALLS


@pytest.mark.parametrize("module", [each for each in MODULES if layer_of(each) != "cli"])
def test_only_the_command_line_prints_reads_argv_or_exits(module: str) -> None:
    names = {ast.unparse(node) for node in ast.walk(tree_of(module)) if isinstance(node, ast.Name | ast.Attribute)}

    assert not names & {"print", "sys.argv", "sys.exit", "sys.stdout", "sys.stderr"}


def test_no_module_is_longer_than_it_should_be() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in PACKAGE.rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 550
    }

    assert long == {}
