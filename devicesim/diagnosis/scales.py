"""Where a cause's arguments are gathered. Pure."""

from dataclasses import dataclass, field

from devicesim.diagnosis.findings import Argument, Cause, Finding, Fix

HINT = 1
"""It fits, and other things would fit as well."""
USUAL = 3
"""It usually means this."""
PROOF = 9
"""As good as proof: AWS's own word, or what AWS's documentation rules out."""


@dataclass(slots=True)
class Scales:
    """What speaks for and against one cause, and what to do about it."""

    supporting: list[Argument] = field(default_factory=list)
    opposing: list[Argument] = field(default_factory=list)
    fixes: list[Fix] = field(default_factory=list)

    def speaks_for(self, weight: int, text: str) -> None:
        self.supporting.append(Argument(text=text, weight=weight))

    def speaks_against(self, weight: int, text: str) -> None:
        self.opposing.append(Argument(text=text, weight=weight))

    def fix(self, text: str, *commands: str) -> None:
        fix = Fix(text=text, commands=commands)
        if fix not in self.fixes:
            self.fixes.append(fix)

    def finding(self, cause: Cause) -> Finding | None:
        """``None`` where nothing speaks for it."""
        if not self.supporting:
            return None
        return Finding(
            cause=cause,
            supporting=tuple(self.supporting),
            opposing=tuple(self.opposing),
            fixes=tuple(self.fixes),
        )
