"""The log's keys, its witnesses and how many of them must have cosigned, as a C2SP tlog-policy file. Pure."""

from collections.abc import Sequence

from audit.note import parse_vkey


def tlog_policy(vkeys: Sequence[str], witnesses: Sequence[str], quorum: int) -> str:
    """`vkeys` are those of the log, `witnesses` the key lines of its witnesses; both keys of one count together.

    `quorum`: how many witnesses a checkpoint needs; 0 is none.

    Raises:
        ValueError: a line is no key line.
    """
    lines = [f"log {vkey}" for vkey in dict.fromkeys(vkeys)]
    keys: dict[str, list[str]] = {}
    for vkey in dict.fromkeys(witnesses):
        keys.setdefault(parse_vkey(vkey).name, []).append(vkey)
    members = []
    for number, (name, own) in enumerate(keys.items(), start=1):
        lines.append(f"# {name}")
        names = [f"w{number}" if len(own) == 1 else f"w{number}.{n}" for n in range(1, len(own) + 1)]
        lines += [f"witness {given} {vkey}" for given, vkey in zip(names, own, strict=True)]
        if len(own) > 1:
            lines.append(f"group w{number} all {' '.join(names)}")
        members.append(f"w{number}")
    if quorum:
        lines.append(f"group enough {quorum} {' '.join(members)}")
    lines.append(f"quorum {'enough' if quorum else 'none'}")
    return "".join(f"{line}\n" for line in lines)
