"""PMML: XML read in a stream, without entities or a document type."""

from pathlib import Path
from xml.sax import SAXException
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl

from defusedxml import DefusedXmlException  # type: ignore[import-untyped,unused-ignore]
from defusedxml.sax import make_parser  # type: ignore[import-untyped,unused-ignore]

from contracts.model import Signature
from registry.inspection.report import Context, column

_MOST_FIELDS = 10_000
_TARGETS = {"target", "predicted"}


class _Handler(ContentHandler):
    """The fields of the data dictionary, of the outermost model's mining schema and of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []
        self.root = ""
        self.types: dict[str, str] = {}
        self.mining: dict[str, str] = {}
        self.output: dict[str, str] = {}

    def startElement(self, name: str, attrs: AttributesImpl) -> None:
        tag = name.rpartition(":")[2]
        self.path.append(tag)
        self.root = self.root or tag
        field = attrs.get("name")
        if not field or len(self.path) > 1_000:
            return
        if self.path[1:] == ["DataDictionary", "DataField"]:
            _put(self.types, field, attrs.get("dataType", "unknown"))
        elif len(self.path) == 4 and self.path[2:] == ["MiningSchema", "MiningField"]:
            _put(self.mining, field, attrs.get("usageType", "active"))
        elif len(self.path) == 4 and self.path[2:] == ["Output", "OutputField"]:
            _put(self.output, field, attrs.get("dataType", ""))

    def endElement(self, name: str) -> None:
        self.path.pop()


def _put(fields: dict[str, str], name: str, value: str) -> None:
    if len(fields) < _MOST_FIELDS:
        fields[name] = value


def inspect_pmml(context: Context, path: Path, file: str, *, named: bool) -> bool:
    """Whether it is PMML. Dangerous XML is unsafe whatever it is."""
    handler, report = _Handler(), context.report
    parser = make_parser()
    parser.forbid_dtd = True
    parser.setContentHandler(handler)
    try:
        with path.open("rb") as source:
            parser.parse(source)
    except DefusedXmlException as error:
        report.unsafe("xml-attack", f"it declares entities or a document type: {error}", file)
        return named or handler.root == "PMML"
    except (SAXException, ValueError, LookupError, UnicodeError) as error:
        if named or handler.root == "PMML":
            report.warn("broken-file", f"it is no sound XML: {error}", file)
        return handler.root == "PMML"
    if handler.root != "PMML":
        if named:
            report.warn("broken-file", f"it is no PMML: its root is {handler.root!r}", file)
        return False
    active = [name for name, usage in handler.mining.items() if usage == "active"]
    targets = [name for name, usage in handler.mining.items() if usage in _TARGETS]
    outputs = handler.output or dict.fromkeys(targets, "")
    if missing := sorted({*active, *targets} - set(handler.types)):
        report.warn("broken-file", f"the data dictionary lacks the field {missing[0]!r}", file)

    def kind(name: str) -> str:
        return outputs.get(name) or handler.types.get(name, "unknown")

    report.signatures[file] = Signature(
        inputs=tuple(column(name, handler.types.get(name, "unknown")) for name in active),
        outputs=tuple(column(name, kind(name)) for name in outputs),
    )
    return True
