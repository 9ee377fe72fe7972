"""What an endpoint gets to see of a request."""

from dataclasses import dataclass

from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_store import Change


@dataclass(slots=True, frozen=True)
class Call:
    """One checked request: typed parameters, the ids from its path, and the change it works on."""

    change: Change
    params: Json
    ids: tuple[str, ...]
    own_url: str
    release_as_refund: bool = False

    @property
    def now(self) -> int:
        """Unix seconds on the stand-in's clock."""
        return self.change.now

    def whole(self, name: str, otherwise: int) -> int:
        """A parameter that was checked to be an integer, where it was given."""
        return int(self.params.get(name, otherwise))

    def named(self, kind: str, param: str) -> Json:
        """The object that the path names."""
        return self.change.get(kind, self.ids[0], param)
